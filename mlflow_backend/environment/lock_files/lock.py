"""A lock: the exact packages of an environment, its key, and its files in two formats."""

import hashlib
import json
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from mlflow_backend.environment import toml_text
from mlflow_backend.environment.lock_files import pylock as pylocks
from mlflow_runner.contract.submission import CONDA_LOCK, PYLOCK, Environment


@dataclass(frozen=True, order=True)
class CondaPackage:
    """One conda package of a lock.

    `sha256` and `md5` are hex; `size_bytes` is 0 if the channel does not list the size.
    """

    name: str
    version: str
    build: str
    subdir: str
    url: str
    sha256: str
    md5: str = ""
    size_bytes: int = 0
    depends: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """The name of the package's archive."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, order=True)
class PipPackage:
    """One Python package of a lock; `hashes` are those of the files that may be installed."""

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Lock:
    """The contents of an environment. `python` is the version of a virtual environment; None if
    Python is a conda package.

    `pylock` is the text of a PEP 751 file, empty if no package comes from a Python index.
    """

    platform: str
    python: str | None
    conda: tuple[CondaPackage, ...] = ()
    pylock: str = ""
    channels: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def pip(self) -> tuple[PipPackage, ...]:
        """The packages from a Python index."""
        return pip_packages(self.pylock)

    def version_of(self, names: Container[str]) -> str | None:
        """The version of the first package with one of these names; None without one."""
        versions = [(package.name, package.version) for package in self.conda]
        versions += [(package.name, package.version) for package in self.pip]
        return next((version for name, version in versions if name in names), None)

    @property
    def key(self) -> str:
        """sha256 (hex) of the packages; independent of their order, and of the formatting, URLs and
        times in a lock file.
        """
        return key(self.platform, self.python, self.conda, self.pip)

    @property
    def size_bytes(self) -> int:
        """The size of the conda packages' archives."""
        return sum(package.size_bytes for package in self.conda)

    def environment(self, lock_dir: str) -> Environment:
        """The environment for the runner, on whose machine `lock_dir` holds the files of
        `files()`.
        """
        return Environment(
            key=self.key,
            platform=self.platform,
            python=self.python,
            lock_dir=lock_dir,
            conda=len(self.conda),
            pip=len(self.pip),
            variables=tuple(sorted(self.variables.items())),
        )

    def files(self) -> dict[str, bytes]:
        """`conda-lock.yml` (conda-lock, micromamba) and `pylock.toml` (uv, pip), each only if it
        lists a package.
        """
        files = {}
        if self.conda:
            files[CONDA_LOCK] = conda_lock(self.platform, self.channels, self.conda).encode()
        if self.pylock:
            files[PYLOCK] = self.pylock.encode()
        return files


def key(
    platform: str, python: str | None, conda: Iterable[CondaPackage], pip: Iterable[PipPackage]
) -> str:
    """The key of an environment of these packages, given in any order."""
    content = {
        "platform": platform,
        "python": python,
        "conda": sorted({(item.subdir, item.file_name, item.sha256 or item.md5) for item in conda}),
        "pip": sorted({(item.name, item.version, tuple(sorted(item.hashes))) for item in pip}),
    }
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def pip_packages(pylock: str) -> tuple[PipPackage, ...]:
    """The packages of a PEP 751 text that `pylock.write` returned."""
    return tuple(
        sorted(_pip_package(entry) for entry in toml_text.load(pylock).get("packages", ()))
    )


def _pip_package(entry: toml_text.Table) -> PipPackage:
    hashes = {text for file in pylocks.files(entry) for text in pylocks.hash_texts(file)}
    if vcs := entry.get("vcs"):
        hashes.add(f"{vcs['type']}:{vcs['commit-id']}:{vcs.get('subdirectory', '')}")
    return PipPackage(entry["name"], str(entry.get("version", "")), tuple(sorted(hashes)))


def conda_lock(platform: str, channels: Iterable[str], packages: Iterable[CondaPackage]) -> str:
    """A `conda-lock.yml` of version 1 (https://conda.github.io/conda-lock/): the same text for the
    same packages in any order.
    """
    packages = sorted(packages)
    content = {
        "version": 1,
        "metadata": {
            "content_hash": {platform: key(platform, None, packages, ())},
            "channels": [{"url": channel, "used_env_vars": []} for channel in channels],
            "platforms": [platform],
            "sources": ["environment"],
        },
        "package": [_entry(package, platform) for package in packages],
    }
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=False, width=100_000)


def _entry(package: CondaPackage, platform: str) -> dict[str, Any]:
    depends = (re.split(r"\s+", item, maxsplit=1) for item in package.depends)
    hashes = {"md5": package.md5, "sha256": package.sha256}
    return {
        "name": package.name,
        "version": package.version,
        "manager": "conda",
        "platform": platform,
        "dependencies": {name: rest[0] if rest else "" for name, *rest in depends},
        "url": package.url,
        "hash": {name: value for name, value in hashes.items() if value},
        "category": "main",
        "optional": False,
    }
