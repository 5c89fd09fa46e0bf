"""PEP 751 locks (`pylock.toml`): checked where they are read, and kept in one canonical form.

https://packaging.python.org/en/latest/specifications/pylock-toml/
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlflow_backend.environment import checks, toml_text
from mlflow_backend.environment.urls import without_login
from mlflow_backend.errors import EnvironmentSpecError

FILES = ("sdist", "archive")
"""The keys of a package with one file each; `wheels` has a list."""
VCS_SCHEMES = ("https", "http", "ssh", "git+https", "git+http", "git+ssh")


def load(text: str, where: str) -> dict[str, Any]:
    """The content of a lock as it is written, logins in its addresses included.

    Raises EnvironmentSpecError with `where`, one line.
    """
    try:
        content = toml_text.load(text)
    except ValueError as error:
        raise EnvironmentSpecError(
            f"{where}: {str(error).splitlines()[0]}: correct the TOML"
        ) from None
    if "lock-version" not in content or "packages" not in content:
        raise EnvironmentSpecError(
            f"{where}: is not a lock: make it with uv pip compile --format pylock.toml, or pip lock"
        )
    return content


def check(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same content after a check of all that it names, and without the logins in its addresses.

    Raises EnvironmentSpecError.
    """
    if not checks.text(content, "lock-version", where).startswith("1."):
        raise EnvironmentSpecError(
            f"{where}: lock-version {content['lock-version']} is not known: make the lock again "
            "for version 1.0"
        )
    checks.text(content, "requires-python", where, default="")
    packages = checks.tables(content, "packages", where)
    _refuse_paths(packages, where)
    return {**content, "packages": [_package(item, where) for item in packages]}


def read(text: str, where: str) -> dict[str, Any]:
    """The checked content of a lock's text. Raises EnvironmentSpecError."""
    return check(load(text, where), where)


def write(content: Mapping[str, Any]) -> str:
    """The text of a lock's content; the same for the same content.

    Empty where it has no packages.
    """
    return toml_text.dump(content) if content.get("packages") else ""


def files(package: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The files that a package may be installed from: its wheels, or else its source."""
    return [*package.get("wheels", ())] or [package[kind] for kind in FILES if kind in package]


def addresses(content: Mapping[str, Any]) -> Iterator[str]:
    """Where the packages come from, their sources included."""
    for package in content["packages"]:
        for file in (
            *package.get("wheels", ()),
            *(package[kind] for kind in (*FILES, "vcs") if kind in package),
        ):
            if "url" in file:
                yield file["url"]


def keep_files(
    content: Mapping[str, Any], wanted: Callable[[Mapping[str, Any], Mapping[str, Any]], bool]
) -> dict[str, Any]:
    """The content with only those files of each package for which `wanted(package, file)` holds."""
    packages = []
    for package in content["packages"]:
        wheels = [file for file in package.get("wheels", ()) if wanted(package, file)]
        left = {
            key: value
            for key, value in package.items()
            if key not in FILES or wanted(package, value)
        }
        packages.append(
            {
                key: value
                for key, value in {**left, "wheels": wheels}.items()
                if key != "wheels" or value
            }
        )
    return {**content, "packages": packages}


def hash_texts(file: Mapping[str, Any]) -> set[str]:
    """The hashes of a file, each as `sha256:HEX`."""
    return {f"{name}:{value}" for name, value in file.get("hashes", {}).items()}


def _refuse_paths(packages: list[dict[str, Any]], where: str) -> None:
    paths = []
    for entry in packages:
        found = [
            *checks.tables(entry, "wheels", where),
            *(checks.table(entry, kind, where) for kind in (*FILES, "vcs")),
        ]
        if "directory" in entry or any("path" in file for file in found):
            paths.append(checks.text(entry, "name", where, checks.NAME))
    if paths:
        raise EnvironmentSpecError(
            f"{where}: {', '.join(paths)}: a path of this machine is not where the run is: list a "
            "release"
        )


def _package(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    name = checks.text(entry, "name", where, checks.NAME)
    where = f"{where}: {name}"
    checks.text(entry, "version", where, checks.VERSION, default="")
    checks.text(entry, "marker", where, default="")
    found = dict(entry)
    if "index" in entry:
        found["index"] = without_login(checks.url(entry, "index", where))
    if "wheels" in entry:
        found["wheels"] = [_file(file, where) for file in checks.tables(entry, "wheels", where)]
    for kind in FILES:
        if kind in entry:
            found[kind] = _file(checks.table(entry, kind, where), where)
    if "vcs" in entry:
        found["vcs"] = _repository(checks.table(entry, "vcs", where), where)
    if not (files(found) or "vcs" in found):
        raise EnvironmentSpecError(f"{where}: has no file: make the lock again")
    return found


def _file(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    address = without_login(checks.url(entry, "url", where))
    checks.text(entry, "name", where, checks.FILE_NAME, default="")
    return {**entry, "url": address, "hashes": checks.hashes(entry, "hashes", where)}


def _repository(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key in ("type", "commit-id"):
        checks.text(entry, key, where, checks.VERSION)
    checks.text(entry, "subdirectory", where, default="")
    return {**entry, "url": without_login(checks.url(entry, "url", where, VCS_SCHEMES))}
