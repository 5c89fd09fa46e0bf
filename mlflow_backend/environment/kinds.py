"""The kinds of environment files, in their order of precedence.

The file that MLproject names comes first; then a lock in the project's folder, because a lock is
exact; then the files that MLflow detects by their names.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from mlflow_backend.environment import urls
from mlflow_backend.environment.checks import quote
from mlflow_backend.environment.indexes import conda_channels, index_access
from mlflow_backend.environment.lock_files import conda_lock_file, pylock
from mlflow_backend.environment.lock_files.lock import CondaPackage, Lock
from mlflow_backend.environment.parsers import conda_yaml, project_files, python_env
from mlflow_backend.environment.parsers.python_versions import python_version
from mlflow_backend.environment.parsers.spec import MLFLOW, Spec, with_mlflow
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
    """The addresses in an environment file, which may contain credentials: its main Python index,
    and further indexes and channels.
    """

    main: str | None = None
    further: tuple[str, ...] = ()


@dataclass(frozen=True)
class Solved(abc.ABC):
    """Base of the kinds that request packages and must be solved; `root` is the project's
    folder.
    """

    path: Path
    root: Path
    key: ClassVar[str]
    file_name: ClassVar[str]

    @classmethod
    def detect(cls, folder: Path, named: Mapping[str, str]) -> "Solved | None":
        """The file that MLproject names under `key`, or without one there the file of this kind's
        name.
        """
        if named:
            return cls(folder / named[cls.key], folder) if cls.key in named else None
        path = folder / cls.file_name
        return cls(path, folder) if path.is_file() else None

    @abc.abstractmethod
    def read(self, subdir: str) -> Spec:
        """The file's requests for the platform `subdir`. Raises EnvironmentSpecError."""

    def request(self, platform: Platform, mlflow_version: str) -> tuple[Spec, list[str]]:
        """The Spec with mlflow added if it is missing, and warnings."""
        spec, warning = with_mlflow(self.read(platform.subdir), mlflow_version)
        return spec, [warning] if warning else []

    def inputs(self, platform: Platform, mlflow_version: str) -> Any:
        """All that the lock depends on except for the indexes; equal inputs give equal locks."""
        return {**vars(self.request(platform, mlflow_version)[0]), "source": ""}

    def addresses(self, platform: Platform) -> Addresses:
        """The addresses in the file. Raises EnvironmentSpecError."""
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
        """Solve; with `refresh` from the current content of channels and indexes, without their
        cached content. Raises EnvironmentSpecError.
        """
        request, warnings = self.request(platform, mlflow_version)
        spec = request.map_lines(
            lambda line: index_access.expand(line, permissions, str(self.path))
        )
        settings = conda_channels.load()
        conda: tuple[CondaPackage, ...] = (
            conda_solver.solve(spec, platform, settings, refresh) if spec.conda else ()
        )
        own = next((package.version for package in conda if package.name == "python"), None)
        if conda and spec.pip and own is None:
            raise EnvironmentSpecError(
                f"{spec.source}: has pip packages, and no python among its conda packages",
                hint="add python to the dependencies",
            )
        python = own or python_version(spec.python, spec.source)
        text = ""
        if spec.pip:
            text = pip_solver.compile_(spec, python, platform, conda, permissions, refresh)
        channels = settings.urls(spec.channels) if conda else ()
        lock = Lock(
            platform.subdir,
            None if conda else python,
            conda,
            text,
            tuple(map(conda_channels.without_credentials, channels)),
            spec.variables,
        )
        return Locked(lock, tuple(warnings))


class CondaEnv(Solved):
    """`conda.yaml`."""

    key = "conda_env"
    file_name = "conda.yaml"

    def read(self, subdir: str) -> Spec:
        """As in Solved."""
        return conda_yaml.read(self.path, self.root, subdir)


class PythonEnv(Solved):
    """`python_env.yaml`."""

    key = "python_env"
    file_name = "python_env.yaml"

    def read(self, subdir: str) -> Spec:
        """As in Solved."""
        return python_env.read(self.path, self.root)


@dataclass(frozen=True)
class Exact(abc.ABC):
    """Base of the kinds that are locks already: used unchanged."""

    path: Path
    root: Path
    file_name: ClassVar[str]

    @classmethod
    def detect(cls, folder: Path, named: Mapping[str, str]) -> "Exact | None":
        """The file of this kind's name that MLproject names, or if it names none the one in the
        project's folder.
        """
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
        """All that the lock depends on; equal inputs give equal locks."""
        return self.text

    def lock(
        self, platform: Platform, mlflow_version: str, permissions: Permissions, refresh: bool
    ) -> Locked:
        """The part for `platform`.

        Raises EnvironmentSpecError without such a part, and for a file that cannot be read.
        """
        lock = self.part(platform)
        if lock.version_of(MLFLOW) is not None:
            return Locked(lock)
        warning = (
            f"{self.path.name} does not list mlflow, so a script that imports it fails: add mlflow "
            "and lock again"
        )
        return Locked(lock, (warning,))

    @abc.abstractmethod
    def addresses(self, platform: Platform) -> Addresses:
        """The addresses in the file that contain a login. Raises EnvironmentSpecError."""

    @abc.abstractmethod
    def part(self, platform: Platform) -> Lock:
        """The packages for `platform`. Raises EnvironmentSpecError."""


class CondaLock(Exact):
    """`conda-lock.yml` of version 1, pip packages included."""

    file_name = CONDA_LOCK

    def addresses(self, platform: Platform) -> Addresses:
        """As in Exact."""
        return Addresses(
            further=conda_lock_file.read(self.text, self.path, platform.subdir).addresses
        )

    def part(self, platform: Platform) -> Lock:
        """As in Exact."""
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
    """`uv.lock`, converted by uv to the standard form without another solve, and without its
    development groups.
    """

    file_name = "uv.lock"

    def inputs(self, platform: Platform, mlflow_version: str) -> Any:
        """As in Exact."""
        return [self.text, self._sibling("pyproject.toml"), self._sibling(".python-version")]

    def addresses(self, platform: Platform) -> Addresses:
        """None: uv does not write logins into the file."""
        return Addresses()

    def part(self, platform: Platform) -> Lock:
        """As in Exact."""
        project = self._sibling("pyproject.toml")
        if project is None:
            raise EnvironmentSpecError(
                f"{self.path}: has no pyproject.toml in its folder",
                code="NotFound",
                hint="copy the pyproject.toml of this lock there",
            )
        content = pylock.read(pip_solver.export(self.text, project, self.path), str(self.path))
        pinned = (self._sibling(".python-version") or "").split()
        wanted = pinned[0] if pinned else content.get("requires-python")
        return Lock(
            platform.subdir, python_version(wanted, self.path), pylock=pylock.write(content)
        )

    def _sibling(self, name: str) -> str | None:
        path = self.path.parent / name
        return project_files.read(path, self.root) if path.exists() else None


class Pylock(Exact):
    """`pylock.toml` (PEP 751)."""

    file_name = PYLOCK

    def addresses(self, platform: Platform) -> Addresses:
        """As in Exact."""
        content = pylock.load(self.text, str(self.path))
        pylock.check(content, str(self.path))
        return Addresses(further=tuple(url for url in pylock.addresses(content) if urls.login(url)))

    def part(self, platform: Platform) -> Lock:
        """As in Exact."""
        content = pylock.read(self.text, str(self.path))
        return Lock(
            platform.subdir,
            python_version(content.get("requires-python"), self.path),
            pylock=pylock.write(content),
        )


LOCKS = (CondaLock, UvLock, Pylock)


def detect(folder: Path, named: Mapping[str, Any]) -> Solved | Exact | None:
    """The environment file of the project in `folder`; `named` are MLproject's `conda_env` or
    `python_env`. None if the project has no such file.

    Raises EnvironmentSpecError for a name that is not text.
    """
    for key, name in named.items():
        if not isinstance(name, str):
            raise EnvironmentSpecError(
                f"MLproject: '{key}' must name a file, not {quote(name)}", code="InvalidFile"
            )
    solved = (CondaEnv, PythonEnv) if named else (PythonEnv, CondaEnv)
    detected = (kind.detect(folder, named) for kind in (*LOCKS, *solved))
    return next((file for file in detected if file), None)
