"""The lock of a project: solved once, then cached for this user until one of its inputs changes."""

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
from mlflow_backend.environment.cache import cache_dir as cache_dir
from mlflow_backend.environment.indexes import index_access, index_settings
from mlflow_backend.environment.lock_files import pylock
from mlflow_backend.environment.lock_files.lock import Lock
from mlflow_backend.environment.parsers.spec import MLFLOW
from mlflow_backend.environment.permissions import Permissions
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.errors import EnvironmentSpecError, without_logins
from mlflow_backend.progress import Progress
from mlflow_runner.contract.submission import CONDA_LOCK, PYLOCK, Environment

FORMAT = 2
"""Part of a lock's address in the cache: it changes when the same inputs give another lock."""
SUMMARY = "lock.json"


@dataclasses.dataclass(frozen=True)
class CachedLock:
    """A lock in the cache: its files are in `folder`. `hosts` are the URLs of the servers of its
    packages.

    `mlflow` is the version of MLflow's client in it; `solved_s` is the time of the solve in
    seconds, None for a lock that was cached already.
    """

    folder: Path
    source: Path
    environment: Environment
    warnings: tuple[str, ...]
    hosts: tuple[str, ...]
    size_bytes: int
    mlflow: str | None
    logins: index_access.Logins = dataclasses.field(default_factory=index_access.Logins)
    solved_s: float | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The lock files, by name."""
        return {
            name: self.folder / name
            for name in (CONDA_LOCK, PYLOCK)
            if (self.folder / name).is_file()
        }

    @property
    def phases(self) -> tuple[tuple[str, float], ...]:
        """The phases before the runner that took time, in the form of a Submission."""
        return (("solve", self.solved_s),) if self.solved_s else ()

    def secrets(self) -> dict[str, bytes]:
        """Files of logins for `hosts`, by the variable that tells the runner each path."""
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
    if the project has no environment file.

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
        index_settings.fingerprint(),
    ]
    folders = [_folder([*inputs, builds]) for builds in (permissions.builds, True)]
    # a lock that was solved with builds needs none
    cached = (None if refresh else _load(path, kind.path) for path in folders)
    lock = next(filter(None, cached), None)
    if lock is None:
        lock = _solve(kind, folders[0], platform, permissions, progress, refresh)
    for warning in lock.warnings:
        progress.say(warning)
    return _with_access(lock, kind, platform, permissions, progress)


def describe(lock: CachedLock) -> str:
    """The number of packages of a lock, and their size."""
    environment = lock.environment
    counts = [
        f"{number} {kind} packages"
        for number, kind in ((environment.conda, "conda"), (environment.pip, "Python"))
        if number
    ]
    size = f", {lock.size_bytes / 1e6:.0f} MB" if lock.size_bytes else ""
    return (" and ".join(counts) or "no packages") + size


def _folder(inputs: list[Any]) -> Path:
    address = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=list).encode()).hexdigest()
    return cache_dir() / "locks" / address


def _solve(
    kind: kinds.Solved | kinds.Exact,
    folder: Path,
    platform: Platform,
    permissions: Permissions,
    progress: Progress,
    refresh: bool,
) -> CachedLock:
    """Solve, and cache the lock; of several processes that need the same lock, one solves and the
    others wait.
    """
    from mlflow.version import VERSION

    name = kind.path.name
    with cache.exclusive(
        cache.make("locks") / f"{folder.name}.lock",
        lambda: progress.waiting(f"waiting for another submit that solves {name}"),
    ):
        if not refresh and (lock := _load(folder, kind.path)):
            return lock
        progress.waiting(f"solving {name} for {platform.subdir}")
        start = time.monotonic()
        locked = kind.lock(platform, VERSION, permissions, refresh)
        solved_s = time.monotonic() - start
        _store(folder, locked.lock, locked.warnings)
        cached = _load(folder, kind.path)
    if cached is None:
        raise EnvironmentSpecError(
            f"{folder}: the new lock cannot be read", code="UnreadableFile", hint="try again"
        )
    progress.say(f"locked {name} for {platform.subdir}: {describe(cached)} in {solved_s:.1f} s")
    return dataclasses.replace(cached, solved_s=round(solved_s, 3))


def _with_access(
    lock: CachedLock,
    kind: kinds.Solved | kinds.Exact,
    platform: Platform,
    permissions: Permissions,
    progress: Progress,
) -> CachedLock:
    """The lock with its index and the logins for its hosts that are sent; `progress` shows the
    others.
    """
    main, further = kind.addresses(platform)
    own = [
        index_access.expand(address, permissions, str(kind.path))
        for address in (main, *further)
        if address
    ]
    index = without_logins(own[0]) if main else index_settings.default_index()
    logins = index_access.find([*lock.hosts, *filter(None, [index])], own, permissions)
    for sentence in logins.withheld:
        progress.say(sentence)
    return dataclasses.replace(
        lock, environment=lock.environment._replace(index=index), logins=logins
    )


def _load(folder: Path, source: Path) -> CachedLock | None:
    try:
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
        fields = summary["environment"]
        environment = Environment(
            **{
                **fields,
                "variables": tuple(map(tuple, fields["variables"])),
                "lock_dir": str(folder),
            }
        )
        return CachedLock(
            folder,
            source,
            environment,
            tuple(summary["warnings"]),
            tuple(summary["hosts"]),
            summary["size_bytes"],
            summary["mlflow"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _store(folder: Path, lock: Lock, warnings: tuple[str, ...]) -> None:
    """Write the lock's folder atomically; the same folder from another process is equally good.

    Raises EnvironmentSpecError.
    """
    try:
        with contextlib.ExitStack() as stack:
            new, old = (
                Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
                for prefix in (".new-", ".old-")
            )
            for path in (new, old):
                stack.callback(shutil.rmtree, path, ignore_errors=True)
            for name, content in lock.files().items():
                (new / name).write_bytes(content)
            (new / SUMMARY).write_text(json.dumps(_summary(lock, warnings)))
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, old / folder.name)
            os.replace(new, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise cache.unwritable(folder, error) from None


def _summary(lock: Lock, warnings: tuple[str, ...]) -> dict[str, Any]:
    addresses = [package.url for package in lock.conda]
    addresses += pylock.addresses(toml_text.load(lock.pylock)) if lock.pylock else []
    return {
        "environment": lock.environment("")._asdict(),
        "warnings": warnings,
        "hosts": sorted({origin.url for origin in map(urls.origin, addresses) if origin}),
        "size_bytes": lock.size_bytes,
        "mlflow": lock.version_of(MLFLOW),
    }
