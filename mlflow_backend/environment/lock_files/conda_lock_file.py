"""`conda-lock.yml` of version 1, as conda-lock writes it: conda packages, pip packages, and the
channels.

https://conda.github.io/conda-lock/output/
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlflow_backend.environment import checks
from mlflow_backend.environment.asked.spec import load_yaml
from mlflow_backend.environment.indexes.conda_channels import without_credentials
from mlflow_backend.environment.lock_files.lock import CondaPackage
from mlflow_backend.errors import EnvironmentSpecError

SUBDIR = re.compile(r"[a-z0-9]+(-[a-z0-9]+)?")
ARCHIVE = re.compile(r".+-[^-]+-(?P<build>[^-]+?)(\.conda|\.tar\.bz2)")


class Content(NamedTuple):
    """What a file lists for one platform; `pip` as the packages of a PEP 751 lock.

    `addresses` are those with a login in them.
    """

    conda: tuple[CondaPackage, ...]
    pip: list[dict[str, Any]]
    channels: tuple[str, ...]
    addresses: tuple[str, ...]


def read(text: str, path: Path, subdir: str | None = None) -> Content:
    """The part for the platform `subdir`, or for all.

    Raises EnvironmentSpecError, one line that names file and package.
    """
    content = load_yaml(text, path)
    if content.get("version") != "1" or not isinstance(content.get("package"), list):
        raise EnvironmentSpecError(
            f"{path}: is no conda-lock file of version 1: make it with conda-lock 2 or later"
        )
    packages = checks.tables(content, "package", str(path))
    platforms = [
        checks.text(item, "platform", f"{path}: package {number}", SUBDIR)
        for number, item in enumerate(packages, 1)
    ]
    mine = [
        item
        for item, platform in zip(packages, platforms, strict=True)
        if subdir in (None, platform) and _is_main(item)
    ]
    if not mine:
        there = ", ".join(sorted(set(platforms))) or "nothing"
        raise EnvironmentSpecError(
            f"{path}: is for {there}, and {subdir} is needed: conda-lock lock --platform {subdir}"
        )
    conda, pip = [], []
    for item in mine:
        where = f"{path}: {checks.text(item, 'name', str(path), checks.NAME)}"
        manager = checks.text(item, "manager", where)
        if manager not in ("conda", "pip"):
            raise EnvironmentSpecError(
                f"{where}: 'manager' is {checks.shown(manager)}: known are conda and pip"
            )
        if manager == "conda":
            conda.append(_conda_package(item, where))
        else:
            pip.append(_pip_package(item, where))
    channels = _channels(content, path)
    raw = [*channels, *(item["url"] for item in mine)]
    return Content(
        tuple(sorted(conda)),
        sorted(pip, key=lambda item: item["name"]),
        tuple(map(without_credentials, channels)),
        tuple(url for url in raw if without_credentials(url) != url),
    )


def _is_main(item: Mapping[str, Any]) -> bool:
    return item.get("category", "main") == "main"


def _conda_package(item: Mapping[str, Any], where: str) -> CondaPackage:
    address = without_credentials(checks.url(item, "url", where))
    archive = ARCHIVE.fullmatch(checks.file_name(address, where))
    subdir = address.rsplit("/", 2)[1]
    if not archive or not SUBDIR.fullmatch(subdir):
        raise EnvironmentSpecError(
            f"{where}: {checks.shown(address)} is not the address of a conda package: make the "
            "lock again"
        )
    hashes = checks.hashes(item, "hash", where)
    if not hashes.keys() & {"sha256", "md5"}:
        raise EnvironmentSpecError(f"{where}: has neither a sha256 nor an md5: make the lock again")
    depends = checks.table(item, "dependencies", where) if item.get("dependencies") else {}
    return CondaPackage(
        name=item["name"],
        version=checks.text(item, "version", where, checks.VERSION),
        build=archive["build"],
        subdir=subdir,
        url=address,
        sha256=hashes.get("sha256", ""),
        md5=hashes.get("md5", ""),
        depends=tuple(f"{name} {checks.text(depends, name, where)}".strip() for name in depends),
    )


def _pip_package(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    file = {"url": checks.url(item, "url", where), "hashes": checks.hashes(item, "hash", where)}
    files = {"wheels": [file]} if file["url"].endswith(".whl") else {"sdist": file}
    return {
        "name": item["name"],
        "version": checks.text(item, "version", where, checks.VERSION),
        **files,
    }


def _channels(content: Mapping[str, Any], path: Path) -> list[str]:
    metadata = checks.table(content, "metadata", str(path)) if content.get("metadata") else {}
    listed = metadata.get("channels") or []
    found = (
        [item.get("url") if isinstance(item, dict) else item for item in listed]
        if isinstance(listed, list)
        else [None]
    )
    if not all(isinstance(item, str) for item in found):
        raise EnvironmentSpecError(
            f"{path}: 'channels' must be a list of URLs: make the lock again"
        )
    return found
