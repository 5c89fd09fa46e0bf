"""Lines as pip reads them: requirements, options, and files that name further ones.

Paths are refused: a lock names packages that an index has, so that the same key
means the same files everywhere.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement

from mlflow_backend.environment.asked import project_files
from mlflow_backend.environment.checks import HASH_DIGITS, shown
from mlflow_backend.environment.urls import is_plain
from mlflow_backend.errors import EnvironmentSpecError

ADDRESSES = ("--index-url", "-i", "--extra-index-url", "--find-links", "-f")
"""Options whose value is an address."""
FLAGS = ("--no-index", "--pre", "--prefer-binary", "--require-hashes")
OPTIONS = (*ADDRESSES, "--no-binary", "--only-binary", *FLAGS)
"""Options of pip that choose what packages are taken; others have no meaning for a lock."""
URL = re.compile(r"[a-z][a-z0-9+.-]*:(?=//)|file:", re.I)
SCHEMES = ("https:", "http:", "git+https:", "git+http:", "git+ssh:")
MOST_FILES = 100


class Reader:
    """Reads the entries of one environment file of a project in the folder `root`."""

    def __init__(self, root: Path):
        self._root = root
        self._files = 0

    def lines(self, entry: Any, named_in: Path, including: tuple[Path, ...] = ()) -> Iterator[str]:
        """What one entry stands for; `-r FILE` and `-c FILE` are followed from the folder of
        `named_in`, inside the project.

        A constraint comes back as `-c REQUIREMENT`. `including` are the files that named each other
        up to here. Raises EnvironmentSpecError naming file and entry.
        """
        if not isinstance(entry, str):
            raise EnvironmentSpecError(
                f"{named_in}: entry {shown(entry)}: write a package such as numpy==2.1"
            )
        line = re.sub(r"(^|\s)#.*$", "", entry).strip()
        if len(line.splitlines()) > 1:
            raise EnvironmentSpecError(
                f"{named_in}: entry {shown(line)}: write one package in each entry"
            )
        if not line:
            return
        name, value = _name_and_value(line)
        if name in ("-r", "--requirement", "-c", "--constraint") and value:
            prefix = "-c " if name in ("-c", "--constraint") else ""
            for found in self._file(value, named_in, including):
                yield found if found.startswith("-") else prefix + found
        elif line.startswith("-"):
            yield _option(line, named_in)
        else:
            yield _requirement(line, named_in)

    def _file(self, name: str, named_in: Path, including: tuple[Path, ...]) -> Iterator[str]:
        path = named_in.parent / name
        text = project_files.read(path, self._root, named=f"{named_in}: {name}")
        self._files += 1
        if path.resolve() in including:
            raise EnvironmentSpecError(f"{named_in}: {name}: includes itself")
        if self._files > MOST_FILES:
            raise EnvironmentSpecError(
                f"{named_in}: {name}: more than {MOST_FILES} files of requirements"
            )
        for line in re.sub(r"\\\r?\n\s*", " ", text).splitlines():
            yield from self.lines(line, path, (*including, path.resolve()))


def _name_and_value(line: str) -> tuple[str, str]:
    """An option and its value, with a space or `=` between them; `-rFILE` as pip reads it too."""
    if match := re.match(r"-[rc](?=[^\s=-])", line):
        return match[0], line[2:]
    name, *rest = re.split(r"[\s=]", line, maxsplit=1)
    return name, "".join(rest).strip(" \t=")


def split_hashes(line: str) -> tuple[str, set[str]]:
    """A requirement line without its hashes, and those, each as `sha256:HEX`."""
    bare, *hashes = re.split(r"\s--hash[=\s]", line)
    return bare.strip(), {text.strip() for text in hashes}


def _option(line: str, named_in: Path) -> str:
    name, value = _name_and_value(line)
    if name in ("-e", "--editable"):
        raise EnvironmentSpecError(
            f"{named_in}: {shown(line)}: an editable install cannot be locked; the project's own "
            "files travel with the run: set PYTHONPATH in the command, or list a released package"
        )
    if name == "--trusted-host":
        raise EnvironmentSpecError(
            f"{named_in}: {shown(line)}: a project cannot turn off certificate checks: set "
            "UV_INSECURE_HOST, or pip's trusted-host, yourself"
        )
    if name not in OPTIONS:
        raise EnvironmentSpecError(
            f"{named_in}: {shown(line)}: this option has no meaning here; known: "
            f"{', '.join(OPTIONS)}"
        )
    if len(value.split()) != (name not in FLAGS):
        raise EnvironmentSpecError(
            f"{named_in}: {shown(line)}: write one option on each line, with its value where it "
            "has one"
        )
    if name in ADDRESSES and not is_plain(value):
        raise EnvironmentSpecError(
            f"{named_in}: {shown(line)}: quote the characters that a URL cannot hold (%5C for a "
            "backslash)"
        )
    if name in ADDRESSES and not value.lower().startswith(("https://", "http://")):
        raise EnvironmentSpecError(
            f"{named_in}: {shown(line)}: a folder of this machine is not where the run is: name a "
            "URL"
        )
    return f"{name} {value}".strip()


def _requirement(line: str, named_in: Path) -> str:
    bare, hashes = split_hashes(line)
    for text in hashes:
        name, _, value = text.partition(":")
        if not re.fullmatch(rf"[0-9a-fA-F]{{{HASH_DIGITS.get(name, 0)}}}", value) or not value:
            raise EnvironmentSpecError(
                f"{named_in}: --hash={shown(text)}: write --hash=sha256: and 64 hex digits"
            )
    checked = "".join(f" --hash={text.lower()}" for text in sorted(hashes))
    if URL.match(bare):
        address, _, marker = bare.partition(" ")
        _check_address(address, line, named_in)
        _check_marker(marker.strip(), line, named_in)
        return bare + checked
    try:
        found = Requirement(bare)
    except InvalidRequirement:
        if re.match(r"[./~]|\w+[/\\]", bare):
            raise _no_path(line, named_in) from None
        raise EnvironmentSpecError(
            f"{named_in}: {shown(line)}: write a package by name, such as numpy==2.1"
        ) from None
    if found.url:
        _check_address(found.url, line, named_in)
    return f"{found}{checked}"


def _check_address(address: str, line: str, named_in: Path) -> None:
    if re.match(r"(git\+)?file:", address, re.I) or not URL.match(address):
        raise _no_path(line, named_in)
    if not address.lower().startswith(SCHEMES) or not is_plain(address):
        known = ", ".join(f"{scheme}//" for scheme in SCHEMES)
        raise EnvironmentSpecError(
            f"{named_in}: {shown(line)}: packages come from URLs with {known}"
        )


def _check_marker(marker: str, line: str, named_in: Path) -> None:
    try:
        if marker:
            Marker(marker.removeprefix(";"))
    except InvalidMarker:
        raise EnvironmentSpecError(
            f"{named_in}: {shown(line)}: write a marker such as ; sys_platform == 'linux' after "
            "the address"
        ) from None


def _no_path(line: str, named_in: Path) -> EnvironmentSpecError:
    return EnvironmentSpecError(
        f"{named_in}: {shown(line)}: a path of this machine cannot be locked; the project's own "
        "files travel with the run: import them from there, or list a released package"
    )
