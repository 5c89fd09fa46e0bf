"""Lines as pip reads them: requirements, options, and files that name further ones.

Paths are rejected: a lock names the packages of an index, so that a key means the same files
everywhere.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement

from mlflow_backend.environment.checks import HASH_DIGITS, quote
from mlflow_backend.environment.parsers import project_files
from mlflow_backend.environment.urls import is_plain
from mlflow_backend.errors import EnvironmentSpecError

ADDRESSES = ("--index-url", "-i", "--extra-index-url", "--find-links", "-f")
"""Options whose value is an address."""
FLAGS = ("--no-index", "--pre", "--prefer-binary", "--require-hashes")
OPTIONS = (*ADDRESSES, "--no-binary", "--only-binary", *FLAGS)
"""Options of pip that choose packages; others have no meaning for a lock."""
URL = re.compile(r"[a-z][a-z0-9+.-]*:(?=//)|file:", re.IGNORECASE)
SCHEMES = ("https:", "http:", "git+https:", "git+http:", "git+ssh:")
MOST_FILES = 100
OWN_FILES = "the project's own files travel with the run"


class Reader:
    """Reads the entries of one environment file of a project in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = 0

    def lines(self, entry: Any, named_in: Path, including: tuple[Path, ...] = ()) -> Iterator[str]:
        """The lines of one entry; `-r FILE` and `-c FILE` are read relative to the folder of
        `named_in`, inside the project.

        A constraint becomes `-c REQUIREMENT`. `including` are the files that led to `named_in`.
        Raises EnvironmentSpecError naming file and entry.
        """
        if not isinstance(entry, str):
            raise EnvironmentSpecError(
                f"{named_in}: entry {quote(entry)} is not a requirement",
                hint="write a package such as numpy==2.1",
            )
        line = re.sub(r"(^|\s)#.*$", "", entry).strip()
        if len(line.splitlines()) > 1:
            raise EnvironmentSpecError(
                f"{named_in}: entry {quote(line)} has several lines",
                hint="write one package in each entry",
            )
        if not line:
            return
        name, value = _name_and_value(line)
        if name in ("-r", "--requirement", "-c", "--constraint") and value:
            prefix = "-c " if name in ("-c", "--constraint") else ""
            for inner in self._file(value, named_in, including):
                yield inner if inner.startswith("-") else prefix + inner
        elif line.startswith("-"):
            yield _option(line, named_in)
        else:
            yield _requirement(line, named_in)

    def _file(self, name: str, named_in: Path, including: tuple[Path, ...]) -> Iterator[str]:
        path = named_in.parent / name
        text = project_files.read(path, self._root, named=f"{named_in}: {name}")
        self._files += 1
        if path.resolve() in including:
            raise EnvironmentSpecError(f"{named_in}: {name}: includes itself", code="InvalidFile")
        if self._files > MOST_FILES:
            raise EnvironmentSpecError(
                f"{named_in}: {name}: more than {MOST_FILES} files of requirements", code="TooLarge"
            )
        for line in re.sub(r"\\\r?\n\s*", " ", text).splitlines():
            yield from self.lines(line, path, (*including, path.resolve()))


def _name_and_value(line: str) -> tuple[str, str]:
    """An option and its value, separated by a space or `=`, or not at all (`-rFILE`) as in pip."""
    if match := re.match(r"-[rc](?=[^\s=-])", line):
        return match[0], line[2:]
    name, *rest = re.split(r"[\s=]", line, maxsplit=1)
    return name, "".join(rest).strip(" \t=")


def split_hashes(line: str) -> tuple[str, set[str]]:
    """A requirement line without its hashes, and the hashes, each as `sha256:HEX`."""
    bare, *hashes = re.split(r"\s--hash[=\s]", line)
    return bare.strip(), {text.strip() for text in hashes}


def _option(line: str, named_in: Path) -> str:
    name, value = _name_and_value(line)
    where = f"{named_in}: {quote(line)}"
    if name in ("-e", "--editable"):
        raise _unsupported(
            f"{where}: an editable install cannot be locked",
            f"{OWN_FILES}: set PYTHONPATH in the command, or list a released package",
        )
    if name == "--trusted-host":
        raise _unsupported(
            f"{where}: a project cannot turn off certificate checks",
            "set UV_INSECURE_HOST, or pip's trusted-host, in your own settings",
        )
    if name not in OPTIONS:
        raise _unsupported(
            f"{where}: this option has no meaning here", f"use only {', '.join(OPTIONS)}"
        )
    if len(value.split()) != (name not in FLAGS):
        raise EnvironmentSpecError(
            f"{where}: is not one option",
            hint="write one option on each line, followed by its value if it takes one",
        )
    if name in ADDRESSES and not is_plain(value):
        raise EnvironmentSpecError(
            f"{where}: has characters that a URL cannot hold",
            hint="quote the characters (%5C for a backslash)",
        )
    if name in ADDRESSES and not value.lower().startswith(("https://", "http://")):
        raise _unsupported(
            f"{where}: a folder of this machine is not available to the run", "write a URL"
        )
    return f"{name} {value}".strip()


def _requirement(line: str, named_in: Path) -> str:
    bare, hashes = split_hashes(line)
    where = f"{named_in}: {quote(line)}"
    for text in hashes:
        name, _, value = text.partition(":")
        if not re.fullmatch(rf"[0-9a-fA-F]{{{HASH_DIGITS.get(name, 0)}}}", value) or not value:
            raise EnvironmentSpecError(
                f"{named_in}: --hash={quote(text)} is not a hash",
                hint="write --hash=sha256: and 64 hex digits",
            )
    suffix = "".join(f" --hash={text.lower()}" for text in sorted(hashes))
    if URL.match(bare):
        address, _, marker = bare.partition(" ")
        _check_address(address, where)
        _check_marker(marker.strip(), where)
        return bare + suffix
    try:
        requirement = Requirement(bare)
    except InvalidRequirement:
        if re.match(r"[./~]|\w+[/\\]", bare):
            raise _no_path(where) from None
        raise EnvironmentSpecError(
            f"{where}: is not a requirement", hint="write a package by name, such as numpy==2.1"
        ) from None
    if requirement.url:
        _check_address(requirement.url, where)
    return f"{requirement}{suffix}"


def _check_address(address: str, where: str) -> None:
    if re.match(r"(git\+)?file:", address, re.IGNORECASE) or not URL.match(address):
        raise _no_path(where)
    if not address.lower().startswith(SCHEMES) or not is_plain(address):
        raise _unsupported(
            f"{where}: the address cannot be locked",
            f"write a URL with {', '.join(f'{scheme}//' for scheme in SCHEMES)}",
        )


def _check_marker(marker: str, where: str) -> None:
    try:
        if marker:
            Marker(marker.removeprefix(";"))
    except InvalidMarker:
        raise EnvironmentSpecError(
            f"{where}: the address is not followed by a marker",
            hint="write a marker such as ; sys_platform == 'linux' after the address",
        ) from None


def _no_path(where: str) -> EnvironmentSpecError:
    return _unsupported(
        f"{where}: a path of this machine cannot be locked",
        f"{OWN_FILES}: import them from there, or list a released package",
    )


def _unsupported(message: str, hint: str) -> EnvironmentSpecError:
    return EnvironmentSpecError(message, code="UnsupportedRequirement", hint=hint)
