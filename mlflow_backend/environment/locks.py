"""The lock of a project: solved once, then kept in this user's cache until what it was made from changes."""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from mlflow_backend.environment import index_access, kinds
from mlflow_backend.environment.lock import Lock, load_toml
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.environment.spec import MLFLOW
from mlflow_backend.errors import EnvironmentSpecError, without_logins
from mlflow_backend.progress import Progress
from mlflow_runner.submission import Environment

FORMAT = 1
"""Part of a lock's address in the cache: other than before where the same inputs would give another lock."""
SUMMARY = "lock.json"


@dataclasses.dataclass(frozen=True)
class Kept:
    """A lock in the cache: its files are in `folder`. `hosts` are the URLs of the servers that its packages come from.

    `mlflow` is the version of MLflow's client in it; `solved_s` is how long solving took, None where it was there already.
    """

    folder: Path
    source: Path
    environment: Environment
    warnings: tuple[str, ...]
    hosts: tuple[str, ...]
    size_bytes: int
    mlflow: str | None
    addresses: tuple[str, ...] = dataclasses.field(default=(), repr=False)  # may hold credentials
    solved_s: float | None = None

    @property
    def files(self) -> dict[str, Path]:
        return {path.name: path for path in sorted(self.folder.iterdir()) if path.name != SUMMARY}

    @property
    def phases(self) -> tuple[tuple[str, float], ...]:
        """What took time before the runner, as a Submission has it."""
        return (("solve", self.solved_s),) if self.solved_s else ()

    def secrets(self) -> dict[str, bytes]:
        """Credentials for `hosts`, by the variable that names each file to the runner."""
        index = self.environment.index
        return index_access.secrets([*self.hosts, *([index] if index else [])], self.addresses)

    def logins(self) -> dict[str, index_access.Login]:
        """The same by host."""
        return index_access.logins(self.hosts, self.addresses)


def cache_dir() -> Path:
    """This user's cache: locks, and the environments of runs on this machine."""
    return Path(platformdirs.user_cache_dir("mlflow-compute"))


def obtain(folder: Path, named: Mapping[str, str], platform: Platform, progress: Progress, refresh: bool = False) -> Kept | None:
    """The lock of the project in `folder` for the platform, from the cache unless `refresh`; None when it lists no environment.

    `named` are `conda_env` or `python_env` of its MLproject. Raises EnvironmentSpecError.
    """
    from mlflow.version import VERSION

    kind = kinds.detect(folder, named)
    if kind is None:
        return None
    try:
        inputs = [FORMAT, type(kind).__name__, kind.inputs(platform, VERSION), platform.subdir, dict(platform.virtual_packages)]
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentSpecError(f"{kind.path}: cannot be read: {error}") from None
    inputs.append(index_access.fingerprint())
    address = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=list).encode()).hexdigest()
    place = cache_dir() / "locks" / address
    kept = None if refresh else _load(place, kind.path)
    if kept is None:
        progress.waiting(f"solving {kind.path.name} for {platform.subdir}")
        start = time.monotonic()
        locked = kind.lock(platform, VERSION, refresh)
        solved_s = time.monotonic() - start
        _store(place, locked.lock, locked.warnings)
        kept = dataclasses.replace(_load(place, kind.path), solved_s=round(solved_s, 3))
        progress.say(f"locked {kind.path.name} for {platform.subdir}: {describe(kept)} in {solved_s:.1f} s")
    for warning in kept.warnings:
        progress.say(warning)
    named_index, further = kind.addresses(platform)
    index = without_logins(named_index) if named_index else index_access.default_index()
    addresses = (named_index, *further) if named_index else further
    return dataclasses.replace(kept, environment=kept.environment._replace(index=index), addresses=addresses)


def describe(kept: Kept) -> str:
    """What is in a lock, in a few words."""
    environment = kept.environment
    counts = [f"{number} {kind} packages" for number, kind in ((environment.conda, "conda"), (environment.pip, "Python")) if number]
    size = f", {kept.size_bytes / 1e6:.0f} MB" if kept.size_bytes else ""
    return (" and ".join(counts) or "no packages") + size


def _load(place: Path, source: Path) -> Kept | None:
    try:
        summary: dict[str, Any] = json.loads((place / SUMMARY).read_text())
        fields = summary["environment"]
        environment = Environment(**{**fields, "variables": tuple(map(tuple, fields["variables"])), "lock_dir": str(place)})
        return Kept(
            place, source, environment, tuple(summary["warnings"]), tuple(summary["hosts"]), summary["size_bytes"], summary["mlflow"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _store(place: Path, lock: Lock, warnings: tuple[str, ...]) -> None:
    """Write the lock's folder whole, or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=place.parent, prefix=".new-"))
    try:
        for name, content in lock.files().items():
            (new / name).write_bytes(content)
        summary = {
            "environment": lock.environment("")._asdict(),
            "warnings": warnings,
            "hosts": sorted(_hosts(lock)),
            "size_bytes": lock.size_bytes,
            "mlflow": next((package.version for package in (*lock.conda, *lock.pip) if package.name in MLFLOW), None),
        }
        (new / SUMMARY).write_text(json.dumps(summary))
        if place.exists():
            os.replace(place, new / "old")
        os.replace(new, place)
    except OSError as error:
        raise EnvironmentSpecError(f"the lock cannot be kept in {place.parent}: {error}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(place / "old", ignore_errors=True)


def _hosts(lock: Lock) -> set[str]:
    urls = [package.url for package in lock.conda]
    for entry in load_toml(lock.pylock).get("packages", ()):
        files = [*entry.get("wheels", ()), entry.get("sdist", {}), entry.get("archive", {}), entry.get("vcs", {})]
        urls += [file["url"] for file in files if "url" in file]
    parts = (urllib.parse.urlsplit(url) for url in urls)
    return {f"{part.scheme}://{part.netloc.rpartition('@')[2]}" for part in parts if part.netloc}
