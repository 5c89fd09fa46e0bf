"""The kinds of files that list an environment, in the order in which they are looked for.

What MLproject names comes first; then a lock in the project's folder, because a lock is exact; then
the files that MLflow looks for by itself.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from mlflow_backend.environment import urls
from mlflow_backend.environment.asked import conda_yaml, project_files, python_env
from mlflow_backend.environment.asked.python_versions import python_version
from mlflow_backend.environment.asked.spec import MLFLOW, Spec, with_mlflow
from mlflow_backend.environment.checks import shown
from mlflow_backend.environment.indexes import conda_channels, index_access
from mlflow_backend.environment.lock_files import conda_lock_file, pylock
from mlflow_backend.environment.lock_files.lock import CondaPackage, Lock
from mlflow_backend.environment.permissions import Permissions
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.environment.solvers import conda_solver, pip_solver
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_runner.contract.submission import CONDA_LOCK, PYLOCK


@dataclass(frozen=True)
class Locked:
    """A Lock, and sentences for the user."""

    lock: Lock
    warnings: tuple[str, ...] = ()


class Addresses(NamedTuple):
    """The addresses that a file itself names, which may hold credentials: its main Python index,
    further ones and channels.
    """

    index: str | None = None
    further: tuple[str, ...] = ()


@dataclass(frozen=True)
class Solved(abc.ABC):
    """Base of the kinds that ask for packages and must be solved; `root` is the project's
    folder.
    """

    path: Path
    root: Path
    key: ClassVar[str]
    file_name: ClassVar[str]

    @classmethod
    def detect(cls, folder: Path, named: Mapping[str, str], by_name_only: bool) -> "Solved | None":
        """The file that MLproject names under `key`, or (unless `by_name_only`) the one MLflow
        finds by its name.
        """
        if cls.key in named:
            return cls(folder / named[cls.key], folder)
        path = folder / cls.file_name
        return cls(path, folder) if not by_name_only and path.is_file() else None

    @abc.abstractmethod
    def read(self, subdir: str) -> Spec:
        """What the file asks for on the platform `subdir`. Raises EnvironmentSpecError."""

    def asked(self, platform: Platform, mlflow_version: str) -> tuple[Spec, list[str]]:
        """The Spec with mlflow in it, and warnings."""
        spec, warning = with_mlflow(self.read(platform.subdir), mlflow_version)
        return spec, [warning] if warning else []

    def inputs(self, platform: Platform, mlflow_version: str) -> Any:
        """All that the lock depends on, apart from the indexes; equal inputs give equal locks."""
        return {**vars(self.asked(platform, mlflow_version)[0]), "source": ""}

    def addresses(self, platform: Platform) -> Addresses:
        spec = self.read(platform.subdir)
        options = [
            line.split(maxsplit=1) for line in spec.pip if line.startswith("-") and " " in line
        ]
        index = next((value for name, value in options if name in ("--index-url", "-i")), None)
        further = [
            value for name, value in options if name in ("--extra-index-url", "--find-links", "-f")
        ]
        return Addresses(index, (*further, *spec.channels))

    def lock(
        self, platform: Platform, mlflow_version: str, permissions: Permissions, refresh: bool
    ) -> Locked:
        """Solve; with `refresh` from what the channels and indexes say now, not from what they said
        a moment ago. Raises EnvironmentSpecError.
        """
        asked, warnings = self.asked(platform, mlflow_version)
        spec = asked.expanded(lambda line: index_access.expanded(line, permissions, str(self.path)))
        settings = conda_channels.load()
        conda: tuple[CondaPackage, ...] = (
            conda_solver.solve(spec, platform, settings, refresh) if spec.conda else ()
        )
        own = next((package.version for package in conda if package.name == "python"), None)
        if conda and spec.pip and own is None:
            raise EnvironmentSpecError(
                f"{spec.source}: has pip packages, and no python among its conda packages: add "
                "python"
            )
        python = own or python_version(spec.python, spec.source)
        text = (
            pip_solver.compile_(spec, python, platform, conda, permissions, refresh)
            if spec.pip
            else ""
        )
        channels = (
            tuple(conda_channels.without_credentials(url) for url in settings.urls(spec.channels))
            if conda
            else ()
        )
        lock = Lock(
            platform.subdir, None if conda else python, conda, text, channels, spec.variables
        )
        return Locked(lock, tuple(warnings))


class CondaEnv(Solved):
    """`conda.yaml`."""

    key = "conda_env"
    file_name = "conda.yaml"

    def read(self, subdir: str) -> Spec:
        return conda_yaml.read(self.path, self.root, subdir)


class PythonEnv(Solved):
    """`python_env.yaml`."""

    key = "python_env"
    file_name = "python_env.yaml"

    def read(self, subdir: str) -> Spec:
        return python_env.read(self.path, self.root)


@dataclass(frozen=True)
class Exact(abc.ABC):
    """Base of the kinds that are locks already: taken as they are, nothing is added."""

    path: Path
    root: Path
    file_name: ClassVar[str]

    @classmethod
    def detect(cls, folder: Path, named: Mapping[str, str], by_name_only: bool) -> "Exact | None":
        for name in named.values():
            if Path(name).name == cls.file_name:
                return cls(folder / name, folder)
        path = folder / cls.file_name
        return cls(path, folder) if not named and path.is_file() else None

    @property
    def text(self) -> str:
        """The file's text. Raises EnvironmentSpecError."""
        return project_files.read(self.path, self.root, project_files.MOST_BYTES_OF_A_LOCK)

    def inputs(self, platform: Platform, mlflow_version: str) -> Any:
        return self.text

    def lock(
        self, platform: Platform, mlflow_version: str, permissions: Permissions, refresh: bool
    ) -> Locked:
        """The part for `platform`.

        Raises EnvironmentSpecError when there is none, or the file cannot be read.
        """
        lock = self.part(platform)
        if {package.name for package in (*lock.conda, *lock.pip)} & MLFLOW:
            return Locked(lock)
        return Locked(
            lock,
            (
                f"{self.path.name} does not list mlflow: a script that imports it will fail; add "
                "it and lock again",
            ),
        )

    @abc.abstractmethod
    def addresses(self, platform: Platform) -> Addresses:
        """The addresses in it that hold a login. Raises EnvironmentSpecError."""

    @abc.abstractmethod
    def part(self, platform: Platform) -> Lock:
        """What the file installs on `platform`. Raises EnvironmentSpecError."""


class CondaLock(Exact):
    """`conda-lock.yml` of version 1, pip packages included."""

    file_name = CONDA_LOCK

    def addresses(self, platform: Platform) -> Addresses:
        return Addresses(
            further=conda_lock_file.read(self.text, self.path, platform.subdir).addresses
        )

    def part(self, platform: Platform) -> Lock:
        content = conda_lock_file.read(self.text, self.path, platform.subdir)
        pip = {"lock-version": "1.0", "created-by": "mlflow-compute", "packages": content.pip}
        return Lock(
            platform.subdir,
            None,
            content.conda,
            pylock.write(pylock.check(pip, str(self.path))),
            content.channels,
        )


class UvLock(Exact):
    """`uv.lock`, brought to the standard form by uv without solving anything again; the groups of
    development left out.
    """

    file_name = "uv.lock"

    def inputs(self, platform: Platform, mlflow_version: str) -> Any:
        return [self.text, self._beside("pyproject.toml"), self._beside(".python-version")]

    def addresses(self, platform: Platform) -> Addresses:
        return Addresses()  # uv does not write logins into it

    def part(self, platform: Platform) -> Lock:
        project = self._beside("pyproject.toml")
        if project is None:
            raise EnvironmentSpecError(
                f"{self.path}: needs the pyproject.toml that it was made from in the same folder"
            )
        content = pylock.read(pip_solver.export(self.text, project, self.path), str(self.path))
        pinned = (self._beside(".python-version") or "").split()
        wanted = pinned[0] if pinned else content.get("requires-python")
        return Lock(
            platform.subdir, python_version(wanted, self.path), pylock=pylock.write(content)
        )

    def _beside(self, name: str) -> str | None:
        path = self.path.parent / name
        return project_files.read(path, self.root) if path.exists() else None


class Pylock(Exact):
    """`pylock.toml` (PEP 751)."""

    file_name = PYLOCK

    def addresses(self, platform: Platform) -> Addresses:
        content = pylock.load(self.text, str(self.path))
        pylock.check(content, str(self.path))
        return Addresses(further=tuple(url for url in pylock.addresses(content) if urls.login(url)))

    def part(self, platform: Platform) -> Lock:
        content = pylock.read(self.text, str(self.path))
        return Lock(
            platform.subdir,
            python_version(content.get("requires-python"), self.path),
            pylock=pylock.write(content),
        )


NAMED = (CondaEnv, PythonEnv)
LOCKS = (CondaLock, UvLock, Pylock)
FOUND = (PythonEnv, CondaEnv)


def detect(folder: Path, named: Mapping[str, Any]) -> Solved | Exact | None:
    """The environment of the project in `folder`; `named` are MLproject's `conda_env` or
    `python_env`. None when it has none.

    Raises EnvironmentSpecError for a name that is not text.
    """
    for key, name in named.items():
        if not isinstance(name, str):
            raise EnvironmentSpecError(f"MLproject: '{key}' must name a file, found {shown(name)}")
    if named:
        kinds = [
            kind for kind in LOCKS if kind.file_name in {Path(name).name for name in named.values()}
        ] or NAMED
        return next(found for kind in kinds if (found := kind.detect(folder, named, True)))
    found = (kind.detect(folder, {}, False) for kind in (*LOCKS, *FOUND))
    return next((item for item in found if item), None)
