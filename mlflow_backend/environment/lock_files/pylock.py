"""PEP 751 locks (`pylock.toml`): checked where they are read, written in one canonical form.

https://packaging.python.org/en/latest/specifications/pylock-toml/
"""

from collections.abc import Callable, Iterator
from typing import Any

from mlflow_backend.environment import checks, toml_text
from mlflow_backend.environment.toml_text import Table
from mlflow_backend.environment.urls import without_login
from mlflow_backend.errors import EnvironmentSpecError

FILES = ("sdist", "archive")
"""Keys of a package that hold one file each; `wheels` holds a list."""
VCS_SCHEMES = ("https", "http", "ssh", "git+https", "git+http", "git+ssh")


def load(text: str, where: str) -> dict[str, Any]:
    """The unchanged content of a lock's text, logins in its addresses included.

    Raises EnvironmentSpecError with `where`, one line.
    """
    try:
        content = toml_text.load(text)
    except ValueError as error:
        raise checks.invalid(f"{where}: {str(error).splitlines()[0]}", "correct the TOML") from None
    if "lock-version" not in content or "packages" not in content:
        raise checks.invalid(
            f"{where}: is not a lock",
            "create it with uv pip compile --format pylock.toml, or pip lock",
        )
    return content


def check(content: Table, where: str) -> dict[str, Any]:
    """The content with every value checked, and without the logins in its addresses.

    Raises EnvironmentSpecError.
    """
    if not checks.text(content, "lock-version", where).startswith("1."):
        raise checks.invalid(
            f"{where}: unknown lock-version {content['lock-version']}",
            "create the lock again for version 1.0",
        )
    checks.text(content, "requires-python", where, default="")
    packages = checks.tables(content, "packages", where)
    _reject_paths(packages, where)
    return {**content, "packages": [_package(item, where) for item in packages]}


def read(text: str, where: str) -> dict[str, Any]:
    """The checked content of a lock's text. Raises EnvironmentSpecError."""
    return check(load(text, where), where)


def write(content: Table) -> str:
    """The text of a lock's content, always the same for the same content; empty without
    packages.
    """
    return toml_text.dump(content) if content.get("packages") else ""


def files(package: Table) -> list[Table]:
    """The files from which a package may be installed: its wheels, or else its source."""
    return [*package.get("wheels", ())] or [package[kind] for kind in FILES if kind in package]


def addresses(content: Table) -> Iterator[str]:
    """The addresses of all files and repositories."""
    for package in content["packages"]:
        for file in (
            *package.get("wheels", ()),
            *(package[kind] for kind in (*FILES, "vcs") if kind in package),
        ):
            if "url" in file:
                yield file["url"]


def keep_files(content: Table, wanted: Callable[[Table, Table], bool]) -> dict[str, Any]:
    """The content with only the files for which `wanted(package, file)` holds."""
    packages = []
    for package in content["packages"]:
        selected = {
            key: value
            for key, value in package.items()
            if key not in FILES or wanted(package, value)
        }
        if wheels := [file for file in package.get("wheels", ()) if wanted(package, file)]:
            selected["wheels"] = wheels
        else:
            selected.pop("wheels", None)
        packages.append(selected)
    return {**content, "packages": packages}


def hash_texts(file: Table) -> set[str]:
    """The hashes of a file, each as `sha256:HEX`."""
    return {f"{name}:{value}" for name, value in file.get("hashes", {}).items()}


def _reject_paths(packages: list[dict[str, Any]], where: str) -> None:
    paths = []
    for entry in packages:
        sources = [
            *checks.tables(entry, "wheels", where),
            *(checks.table(entry, kind, where) for kind in (*FILES, "vcs")),
        ]
        if "directory" in entry or any("path" in source for source in sources):
            paths.append(checks.text(entry, "name", where, checks.NAME))
    if paths:
        raise EnvironmentSpecError(
            f"{where}: {', '.join(paths)}: a path of this machine is not available to the run",
            code="UnsupportedRequirement",
            hint="list a released package",
        )


def _package(entry: Table, where: str) -> dict[str, Any]:
    name = checks.text(entry, "name", where, checks.NAME)
    where = f"{where}: {name}"
    checks.text(entry, "version", where, checks.VERSION, default="")
    checks.text(entry, "marker", where, default="")
    package = dict(entry)
    if "index" in entry:
        package["index"] = without_login(checks.url(entry, "index", where))
    if "wheels" in entry:
        package["wheels"] = [_file(file, where) for file in checks.tables(entry, "wheels", where)]
    for kind in FILES:
        if kind in entry:
            package[kind] = _file(checks.table(entry, kind, where), where)
    if "vcs" in entry:
        package["vcs"] = _repository(checks.table(entry, "vcs", where), where)
    if not (files(package) or "vcs" in package):
        raise checks.invalid(f"{where}: has no file")
    return package


def _file(entry: Table, where: str) -> dict[str, Any]:
    address = without_login(checks.url(entry, "url", where))
    checks.text(entry, "name", where, checks.FILE_NAME, default="")
    return {**entry, "url": address, "hashes": checks.hashes(entry, "hashes", where)}


def _repository(entry: Table, where: str) -> dict[str, Any]:
    for key in ("type", "commit-id"):
        checks.text(entry, key, where, checks.VERSION)
    checks.text(entry, "subdirectory", where, default="")
    return {**entry, "url": without_login(checks.url(entry, "url", where, VCS_SCHEMES))}
