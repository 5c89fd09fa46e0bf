"""The kinds of files that list an environment, in the order in which they are looked for.

What MLproject names comes first; then a lock beside it, because a lock is exact;
then the files that MLflow looks for by itself.
"""

import abc
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from mlflow_backend.environment import conda_channels, conda_solver, conda_yaml, pip_solver, python_env
from mlflow_backend.environment.lock import CondaPackage, Lock, load_toml
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.environment.spec import MLFLOW, Spec, load_yaml, with_mlflow
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_runner.submission import CONDA_LOCK, PYLOCK


@dataclass(frozen=True)
class Locked:
    """A Lock, and sentences for the user."""

    lock: Lock
    warnings: tuple[str, ...] = ()


class Addresses(NamedTuple):
    """The addresses that a file itself names, which may hold credentials: its main Python index, further ones and channels."""

    index: str | None = None
    further: tuple[str, ...] = ()


@dataclass(frozen=True)
class Solved(abc.ABC):
    """Base of the kinds that ask for packages and must be solved."""

    path: Path
    key: ClassVar[str]
    file_name: ClassVar[str]

    @classmethod
    def detect(cls, folder: Path, named: Mapping[str, str], by_name_only: bool) -> "Solved | None":
        """The file that MLproject names under `key`, or (unless `by_name_only`) the one MLflow finds by its name."""
        if cls.key in named:
            return cls(folder / named[cls.key])
        path = folder / cls.file_name
        return cls(path) if not by_name_only and path.is_file() else None

    @abc.abstractmethod
    def read(self, subdir: str) -> Spec:
        """What the file asks for on the platform `subdir`. Raises EnvironmentSpecError."""

    def asked(self, platform: Platform, mlflow_version: str) -> tuple[Spec, list[str]]:
        """The Spec with mlflow in it, and warnings."""
        spec, warning = with_mlflow(self.read(platform.subdir), mlflow_version)
        return spec, [warning] if warning else []

    def inputs(self, platform: Platform, mlflow_version: str) -> Any:
        """All that the lock depends on beside the indexes; equal inputs give equal locks."""
        return {**vars(self.asked(platform, mlflow_version)[0]), "source": ""}

    def addresses(self, platform: Platform) -> Addresses:
        spec = self.read(platform.subdir)
        options = [line.split(maxsplit=1) for line in spec.pip if line.startswith("-") and " " in line]
        index = next((value for name, value in options if name in ("--index-url", "-i")), None)
        further = [value for name, value in options if name in ("--extra-index-url", "--find-links", "-f")]
        return Addresses(index, (*further, *spec.channels))

    def lock(self, platform: Platform, mlflow_version: str, refresh: bool) -> Locked:
        """Solve; with `refresh` from what the channels and indexes say now, not from what they said a moment ago. Raises EnvironmentSpecError."""
        spec, warnings = self.asked(platform, mlflow_version)
        settings = conda_channels.load()
        conda: tuple[CondaPackage, ...] = conda_solver.solve(spec, platform, settings, refresh) if spec.conda else ()
        own = next((package.version for package in conda if package.name == "python"), None)
        if conda and spec.pip and own is None:
            raise EnvironmentSpecError(f"{spec.source}: has pip packages, and no python among its conda packages: add python")
        python = own or pip_solver.python_version(spec.python, spec.source)
        pylock = pip_solver.compile_(spec, python, platform, conda, refresh) if spec.pip else ""
        channels = tuple(conda_channels.without_credentials(url) for url in settings.urls(spec.channels)) if conda else ()
        lock = Lock(platform.subdir, None if conda else python, conda, pylock, channels, spec.variables)
        return Locked(lock, tuple(warnings))


class CondaEnv(Solved):
    """`conda.yaml`."""

    key = "conda_env"
    file_name = "conda.yaml"

    def read(self, subdir: str) -> Spec:
        return conda_yaml.read(self.path, subdir)


class PythonEnv(Solved):
    """`python_env.yaml`."""

    key = "python_env"
    file_name = "python_env.yaml"

    def read(self, subdir: str) -> Spec:
        return python_env.read(self.path)


@dataclass(frozen=True)
class Exact(abc.ABC):
    """Base of the kinds that are locks already: taken as they are, nothing is added."""

    path: Path
    file_name: ClassVar[str]

    @classmethod
    def detect(cls, folder: Path, named: Mapping[str, str], by_name_only: bool) -> "Exact | None":
        for name in named.values():
            if Path(name).name == cls.file_name:
                return cls(folder / name)
        path = folder / cls.file_name
        return cls(path) if not named and path.is_file() else None

    def inputs(self, platform: Platform, mlflow_version: str) -> Any:
        return self.path.read_text()

    def addresses(self, platform: Platform) -> Addresses:
        return Addresses()

    def lock(self, platform: Platform, mlflow_version: str, refresh: bool) -> Locked:
        """The part for `platform`. Raises EnvironmentSpecError when there is none, or the file cannot be read."""
        lock = self.part(platform)
        if {package.name for package in (*lock.conda, *lock.pip)} & MLFLOW:
            return Locked(lock)
        return Locked(lock, (f"{self.path.name} does not list mlflow: a script that imports it will fail; add it and lock again",))

    @abc.abstractmethod
    def part(self, platform: Platform) -> Lock:
        """What the file installs on `platform`. Raises EnvironmentSpecError."""


class CondaLock(Exact):
    """`conda-lock.yml` of version 1, pip packages included."""

    file_name = CONDA_LOCK

    def part(self, platform: Platform) -> Lock:
        content = load_yaml(self.path)
        packages = content.get("package")
        if str(content.get("version")) != "1" or not isinstance(packages, list):
            raise EnvironmentSpecError(f"{self.path}: is no conda-lock file of version 1: make it with conda-lock 2 or later")
        mine = [item for item in packages if item["platform"] == platform.subdir and item.get("category", "main") == "main"]
        if not mine:
            there = ", ".join(sorted({item["platform"] for item in packages})) or "nothing"
            raise EnvironmentSpecError(
                f"{self.path}: is for {there}, and {platform.subdir} is needed: conda-lock lock --platform {platform.subdir}"
            )
        conda = tuple(sorted(_conda_package(item) for item in mine if item["manager"] == "conda"))
        pip = sorted((item for item in mine if item["manager"] == "pip"), key=lambda item: item["name"])
        channels = tuple(
            channel["url"] if isinstance(channel, dict) else channel for channel in content.get("metadata", {}).get("channels", ())
        )
        return Lock(platform.subdir, None, conda, _pylock_of_urls(pip), channels)


class UvLock(Exact):
    """`uv.lock`, brought to the standard form by uv without solving anything again; the groups of development left out."""

    file_name = "uv.lock"

    def part(self, platform: Platform) -> Lock:
        folder = self.path.parent
        if not (folder / "pyproject.toml").is_file():
            raise EnvironmentSpecError(f"{self.path}: needs the pyproject.toml that it was made from beside it")
        arguments = ["export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--format", "pylock.toml"]
        text = pip_solver.run_uv(arguments, str(folder), self.path)
        pinned = folder / ".python-version"
        wanted = pinned.read_text().split()[0] if pinned.is_file() else load_toml(text).get("requires-python")
        return Lock(platform.subdir, pip_solver.python_version(wanted, self.path), pylock=text)


class Pylock(Exact):
    """`pylock.toml` (PEP 751)."""

    file_name = PYLOCK

    def part(self, platform: Platform) -> Lock:
        text = self.path.read_text()
        try:
            content = load_toml(text)
        except ValueError as error:
            raise EnvironmentSpecError(f"{self.path}: {error}: correct the TOML") from None
        if "lock-version" not in content or "packages" not in content:
            raise EnvironmentSpecError(f"{self.path}: is no lock: make it with uv pip compile --format pylock.toml, or pip lock")
        paths = [entry["name"] for entry in content["packages"] if "directory" in entry or "path" in entry.get("archive", {})]
        if paths:
            raise EnvironmentSpecError(f"{self.path}: {', '.join(paths)}: a path of this machine is not where the run is: list a release")
        return Lock(platform.subdir, pip_solver.python_version(content.get("requires-python"), self.path), pylock=text)


NAMED = (CondaEnv, PythonEnv)
LOCKS = (CondaLock, UvLock, Pylock)
FOUND = (PythonEnv, CondaEnv)


def detect(folder: Path, named: Mapping[str, str]) -> Solved | Exact | None:
    """The environment of the project in `folder`; `named` are MLproject's `conda_env` or `python_env`. None when it has none."""
    if named:
        kinds = [kind for kind in LOCKS if kind.file_name in {Path(name).name for name in named.values()}] or NAMED
        return next(found for kind in kinds if (found := kind.detect(folder, named, True)))
    found = (kind.detect(folder, {}, False) for kind in (*LOCKS, *FOUND))
    return next((item for item in found if item), None)


def _conda_package(item: Mapping[str, Any]) -> CondaPackage:
    url, hashes = item["url"], item.get("hash") or {}
    subdir, file_name = url.rsplit("/", 2)[1:]
    stem = re.sub(r"\.(conda|tar\.bz2)$", "", file_name)
    depends = tuple(f"{name} {version}".strip() for name, version in (item.get("dependencies") or {}).items())
    return CondaPackage(
        item["name"], item["version"], stem.rpartition("-")[2], subdir, url, hashes.get("sha256", ""), hashes.get("md5", ""), 0, depends
    )


def _pylock_of_urls(items) -> str:
    """A PEP 751 text of packages that are known by the URL of one file each."""
    if not items:
        return ""
    blocks = ['lock-version = "1.0"\ncreated-by = "mlflow-compute"\n']
    for item in items:
        hashes = ", ".join(f"{name} = {_quoted(value)}" for name, value in item["hash"].items())
        file = f"{{ url = {_quoted(item['url'])}, hashes = {{ {hashes} }} }}"
        entry = f"wheels = [{file}]" if item["url"].endswith(".whl") else f"sdist = {file}"
        blocks.append(f"[[packages]]\nname = {_quoted(item['name'])}\nversion = {_quoted(item['version'])}\n{entry}\n")
    return "\n".join(blocks)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON writes the same."""
    return json.dumps(text, ensure_ascii=False)
