"""`conda-lock.yml` of version 1, as conda-lock writes it: conda packages, pip packages, channels.

https://conda.github.io/conda-lock/output/
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from mlflow_backend.environment import checks
from mlflow_backend.environment.indexes.conda_channels import without_credentials
from mlflow_backend.environment.lock_files.lock import CondaPackage
from mlflow_backend.environment.parsers.spec import load_yaml
from mlflow_backend.environment.toml_text import Table

SUBDIR = re.compile(r"[a-z0-9]+(-[a-z0-9]+)?")
ARCHIVE = re.compile(r".+-[^-]+-(?P<build>[^-]+?)(\.conda|\.tar\.bz2)")


class Content(NamedTuple):
    """The packages of one platform; `pip` as the packages of a PEP 751 lock.

    `addresses` are those that contain a login.
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
        raise checks.invalid(
            f"{path}: is not a conda-lock file of version 1", "create it with conda-lock 2 or later"
        )
    items = _items(content, path, subdir)
    conda, pip = [], []
    for item in items:
        where = f"{path}: {checks.text(item, 'name', str(path), checks.NAME)}"
        manager = checks.text(item, "manager", where)
        if manager == "conda":
            conda.append(_conda_package(item, where))
        elif manager == "pip":
            pip.append(_pip_package(item, where))
        else:
            raise checks.invalid(
                f"{where}: 'manager' is {checks.quote(manager)}, and must be conda or pip"
            )
    channels = _channels(content, path)
    urls = [*channels, *(item["url"] for item in items)]
    return Content(
        tuple(sorted(conda)),
        sorted(pip, key=lambda item: str(item["name"])),
        tuple(map(without_credentials, channels)),
        tuple(url for url in urls if without_credentials(url) != url),
    )


def _items(content: Table, path: Path, subdir: str | None) -> list[dict[str, Any]]:
    """The entries of the main category for a platform, at least one."""
    items = checks.tables(content, "package", str(path))
    platforms = [
        checks.text(item, "platform", f"{path}: package {number}", SUBDIR)
        for number, item in enumerate(items, 1)
    ]
    selected = [
        item
        for item, platform in zip(items, platforms, strict=True)
        if subdir in (None, platform) and item.get("category", "main") == "main"
    ]
    if not selected:
        if not platforms or subdir is None:
            raise checks.invalid(f"{path}: lists no packages")
        raise checks.invalid(
            f"{path}: is for {', '.join(sorted(set(platforms)))}, and the run needs {subdir}",
            f"conda-lock lock --platform {subdir}",
        )
    return selected


def _conda_package(item: Table, where: str) -> CondaPackage:
    address = without_credentials(checks.url(item, "url", where))
    archive = ARCHIVE.fullmatch(checks.file_name(address, where))
    subdir = address.rsplit("/", 2)[1]
    if not archive or not SUBDIR.fullmatch(subdir):
        raise checks.invalid(
            f"{where}: {checks.quote(address)} is not the address of a conda package"
        )
    hashes = checks.hashes(item, "hash", where)
    if not hashes.keys() & {"sha256", "md5"}:
        raise checks.invalid(f"{where}: has neither a sha256 nor an md5")
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


def _pip_package(item: Table, where: str) -> dict[str, Any]:
    url = checks.url(item, "url", where)
    file = {"url": url, "hashes": checks.hashes(item, "hash", where)}
    return {
        "name": item["name"],
        "version": checks.text(item, "version", where, checks.VERSION),
        **({"wheels": [file]} if url.endswith(".whl") else {"sdist": file}),
    }


def _channels(content: Table, path: Path) -> list[str]:
    metadata = checks.table(content, "metadata", str(path)) if content.get("metadata") else {}
    listed = metadata.get("channels") or []
    urls = [
        item.get("url") if isinstance(item, dict) else item
        for item in (listed if isinstance(listed, list) else [None])
    ]
    channels = [url for url in urls if isinstance(url, str)]
    if len(channels) < len(urls):
        raise checks.invalid(f"{path}: 'channels' must be a list of URLs")
    return channels
