"""What a lock's files install, package by package, for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mlflow_backend.environment.lock import load_toml
from mlflow_backend.environment.spec import load_yaml
from mlflow_runner.submission import CONDA_LOCK, PYLOCK


class Package(NamedTuple):
    name: str
    version: str
    kind: str
    file: str


def packages(files: Mapping[str, Path]) -> list[Package]:
    """All packages of the lock files (by name), sorted by name."""
    found = []
    if CONDA_LOCK in files:
        for item in load_yaml(files[CONDA_LOCK])["package"]:
            found.append(Package(item["name"], item["version"], "conda", item["url"].rpartition("/")[2]))
    if PYLOCK in files:
        for item in load_toml(files[PYLOCK].read_text()).get("packages", ()):
            choices = [*item.get("wheels", ()), *filter(None, (item.get("sdist"), item.get("archive"), item.get("vcs")))]
            url = next((choice["url"] for choice in choices if "url" in choice), "")
            found.append(Package(item["name"], str(item.get("version", "")), "Python index", url.rpartition("/")[2]))
    return sorted(found)
