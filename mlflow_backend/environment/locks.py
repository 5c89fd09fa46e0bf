"""The lock of a project: solved once, then kept in this user's cache until what it was made from
changes.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_backend.environment import cache, kinds, toml_text, urls
from mlflow_backend.environment.asked.spec import MLFLOW
from mlflow_backend.environment.cache import cache_dir as cache_dir
from mlflow_backend.environment.indexes import index_access, index_settings
from mlflow_backend.environment.lock_files import pylock
from mlflow_backend.environment.lock_files.lock import Lock
from mlflow_backend.environment.permissions import Permissions
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.errors import EnvironmentSpecError, without_logins
from mlflow_backend.progress import Progress
from mlflow_runner.contract.submission import CONDA_LOCK, PYLOCK, Environment

FORMAT = 2
"""Part of a lock's address in the cache: other than before where the same inputs would give another
lock.
"""
SUMMARY = "lock.json"


@dataclasses.dataclass(frozen=True)
class CachedLock:
    """A lock in the cache: its files are in `folder`. `hosts` are the URLs of the servers that its
    packages come from.

    `mlflow` is the version of MLflow's client in it; `solved_s` is how long solving took, None
    where it was there already.
    """

    folder: Path
    source: Path
    environment: Environment
    warnings: tuple[str, ...]
    hosts: tuple[str, ...]
    size_bytes: int
    mlflow: str | None
    logins: index_access.Logins = index_access.Logins({})
    solved_s: float | None = None

    @property
    def files(self) -> dict[str, Path]:
        return {
            name: self.folder / name
            for name in (CONDA_LOCK, PYLOCK)
            if (self.folder / name).is_file()
        }

    @property
    def phases(self) -> tuple[tuple[str, float], ...]:
        """What took time before the runner, as a Submission has it."""
        return (("solve", self.solved_s),) if self.solved_s else ()

    def secrets(self) -> dict[str, bytes]:
        """Logins for `hosts`, by the variable that names each file to the runner."""
        return self.logins.files()


def obtain(
    folder: Path,
    named: Mapping[str, str],
    platform: Platform,
    permissions: Permissions,
    progress: Progress,
    refresh: bool = False,
) -> CachedLock | None:
    """The lock of the project in `folder` for the platform, from the cache unless `refresh`; None
    when it lists no environment.

    `named` are `conda_env` or `python_env` of its MLproject. Raises EnvironmentSpecError.
    """
    from mlflow.version import VERSION

    kind = kinds.detect(folder, named)
    if kind is None:
        return None
    inputs = [
        FORMAT,
        type(kind).__name__,
        kind.inputs(platform, VERSION),
        platform.subdir,
        dict(platform.virtual_packages),
    ]
    inputs.append(index_settings.fingerprint())
    own, built = _place([*inputs, permissions.builds]), _place([*inputs, True])
    # made with builds before: none is needed now
    kept = None if refresh else _load(own, kind.path) or _load(built, kind.path)
    if kept is None:
        kept = _solve(kind, own, platform, permissions, progress, refresh)
    for warning in kept.warnings:
        progress.say(warning)
    return _with_access(kept, kind, platform, permissions, progress)


def describe(kept: CachedLock) -> str:
    """What is in a lock, in a few words."""
    environment = kept.environment
    counts = [
        f"{number} {kind} packages"
        for number, kind in ((environment.conda, "conda"), (environment.pip, "Python"))
        if number
    ]
    size = f", {kept.size_bytes / 1e6:.0f} MB" if kept.size_bytes else ""
    return (" and ".join(counts) or "no packages") + size


def _place(inputs: list[Any]) -> Path:
    address = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=list).encode()).hexdigest()
    return cache_dir() / "locks" / address


def _solve(
    kind: kinds.Solved | kinds.Exact,
    place: Path,
    platform: Platform,
    permissions: Permissions,
    progress: Progress,
    refresh: bool,
) -> CachedLock:
    """Solve and keep; of several processes that need the same lock at once, one does and the others
    wait for it.
    """
    from mlflow.version import VERSION

    name = kind.path.name
    with cache.alone(
        cache.make("locks") / f"{place.name}.lock",
        lambda: progress.waiting(f"waiting for another submit that solves {name}"),
    ):
        if not refresh and (kept := _load(place, kind.path)):
            return kept
        progress.waiting(f"solving {name} for {platform.subdir}")
        start = time.monotonic()
        locked = kind.lock(platform, VERSION, permissions, refresh)
        solved_s = time.monotonic() - start
        _store(place, locked.lock, locked.warnings)
        kept = _load(place, kind.path)
    if kept is None:
        raise EnvironmentSpecError(f"{place}: the lock cannot be read back: try again")
    progress.say(f"locked {name} for {platform.subdir}: {describe(kept)} in {solved_s:.1f} s")
    return dataclasses.replace(kept, solved_s=round(solved_s, 3))


def _with_access(
    kept: CachedLock, kind, platform: Platform, permissions: Permissions, progress: Progress
) -> CachedLock:
    """The lock with its index, and with the logins for its hosts that may go along; those that stay
    are named.
    """
    index, further = kind.addresses(platform)
    own = [
        index_access.expanded(address, permissions, str(kind.path))
        for address in (index, *further)
        if address
    ]
    index = without_logins(own[0]) if index else index_settings.default_index()
    logins = index_access.find([*kept.hosts, *filter(None, [index])], own, permissions)
    for sentence in logins.withheld:
        progress.say(sentence)
    return dataclasses.replace(
        kept, environment=kept.environment._replace(index=index), logins=logins
    )


def _load(place: Path, source: Path) -> CachedLock | None:
    try:
        summary: dict[str, Any] = json.loads((place / SUMMARY).read_text())
        fields = summary["environment"]
        environment = Environment(
            **{
                **fields,
                "variables": tuple(map(tuple, fields["variables"])),
                "lock_dir": str(place),
            }
        )
        return CachedLock(
            place,
            source,
            environment,
            tuple(summary["warnings"]),
            tuple(summary["hosts"]),
            summary["size_bytes"],
            summary["mlflow"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _store(place: Path, lock: Lock, warnings: tuple[str, ...]) -> None:
    """Write the lock's folder whole, or not at all.

    One that another process has written meanwhile is as good.
    """
    try:
        with contextlib.ExitStack() as stack:
            new, old = (
                Path(tempfile.mkdtemp(dir=place.parent, prefix=prefix))
                for prefix in (".new-", ".old-")
            )
            for path in (new, old):
                stack.callback(shutil.rmtree, path, ignore_errors=True)
            for name, content in lock.files().items():
                (new / name).write_bytes(content)
            (new / SUMMARY).write_text(json.dumps(_summary(lock, warnings)))
            with contextlib.suppress(FileNotFoundError):
                os.replace(place, old / place.name)
            os.replace(new, place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise EnvironmentSpecError(
                f"the lock cannot be kept in {place.parent}: {error.strerror}"
            ) from None


def _summary(lock: Lock, warnings: tuple[str, ...]) -> dict[str, Any]:
    addresses = [package.url for package in lock.conda]
    addresses += pylock.addresses(toml_text.load(lock.pylock)) if lock.pylock else []
    return {
        "environment": lock.environment("")._asdict(),
        "warnings": warnings,
        "hosts": sorted({found.url for found in map(urls.origin, addresses) if found}),
        "size_bytes": lock.size_bytes,
        "mlflow": next(
            (package.version for package in (*lock.conda, *lock.pip) if package.name in MLFLOW),
            None,
        ),
    }
