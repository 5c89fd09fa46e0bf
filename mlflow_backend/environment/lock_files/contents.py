"""The packages of lock files, for people."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mlflow_backend import yaml_files
from mlflow_backend.environment.lock_files import conda_lock_file, pylock
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_runner.contract.submission import CONDA_LOCK, PYLOCK


class Package(NamedTuple):
    """One package: `kind` says where it comes from, `file` is the name of its archive."""

    name: str
    version: str
    kind: str
    file: str


def packages(files: Mapping[str, Path]) -> list[Package]:
    """All packages of the lock files (by name), sorted by name. Raises EnvironmentSpecError."""
    listed: list[Package] = []
    if path := files.get(CONDA_LOCK):
        listed += _conda_packages(path)
    if path := files.get(PYLOCK):
        listed += _python_packages(path)
    return sorted(listed)


def _conda_packages(path: Path) -> Iterator[Package]:
    for item in conda_lock_file.read(yaml_files.read(path, EnvironmentSpecError), path).conda:
        yield Package(item.name, item.version, "conda", item.file_name)


def _python_packages(path: Path) -> Iterator[Package]:
    for item in pylock.read(yaml_files.read(path, EnvironmentSpecError), str(path))["packages"]:
        file = next(pylock.addresses({"packages": [item]})).rpartition("/")[2]
        yield Package(item["name"], item.get("version", ""), "Python index", file)
