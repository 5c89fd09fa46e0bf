"""What a lock's files install, package by package, for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mlflow_backend import yaml_files
from mlflow_backend.environment.lock_files import conda_lock_file, pylock
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_runner.contract.submission import CONDA_LOCK, PYLOCK


class Package(NamedTuple):
    name: str
    version: str
    kind: str
    file: str


def packages(files: Mapping[str, Path]) -> list[Package]:
    """All packages of the lock files (by name), sorted by name. Raises EnvironmentSpecError."""
    found = []
    if CONDA_LOCK in files:
        path = files[CONDA_LOCK]
        for item in conda_lock_file.read(yaml_files.read(path, EnvironmentSpecError), path).conda:
            found.append(Package(item.name, item.version, "conda", item.file_name))
    if PYLOCK in files:
        path = files[PYLOCK]
        for item in pylock.read(yaml_files.read(path, EnvironmentSpecError), str(path))["packages"]:
            url = next(pylock.addresses({"packages": [item]}))
            found.append(
                Package(
                    item["name"], item.get("version", ""), "Python index", url.rpartition("/")[2]
                )
            )
    return sorted(found)
