"""Lines as pip reads them: requirements, options, and files that name further ones.

Paths are refused: a lock names packages that an index has, so that the same key
means the same files everywhere.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from mlflow_backend.errors import EnvironmentSpecError, redact

OPTIONS = ("--index-url", "-i", "--extra-index-url", "--find-links", "-f", "--no-index", "--no-binary", "--only-binary", "--pre", "--prefer-binary", "--trusted-host")  # fmt: skip
"""Options of pip that choose where packages come from; others have no meaning for a lock."""
URL = re.compile(r"[a-z][a-z+.]*://", re.I)


def lines(entry: Any, named_in: Path) -> Iterator[str]:
    """What one entry stands for; `-r FILE` and `-c FILE` are followed from the folder of `named_in`.

    A constraint comes back as `-c REQUIREMENT`. Raises EnvironmentSpecError naming file and entry.
    """
    if not isinstance(entry, str):
        raise EnvironmentSpecError(f"{named_in}: entry {entry!r}: write a package such as numpy==2.1")
    line = re.sub(r"(^|\s)#.*$", "", entry).strip()
    if not line:
        return
    if match := re.fullmatch(r"(-r|--requirement|-c|--constraint)[\s=]*(\S+)", line):
        prefix = "-c " if match[1] in ("-c", "--constraint") else ""
        for found in _file(named_in.parent / match[2], named_in):
            yield found if found.startswith("-") else prefix + found
    elif line.startswith("-"):
        yield _option(line, named_in)
    else:
        yield _requirement(line, named_in)


def _file(path: Path, named_in: Path) -> Iterator[str]:
    try:
        text = path.read_text()
    except OSError as error:
        raise EnvironmentSpecError(f"{named_in}: {path} cannot be read: {error.strerror}") from None
    for line in re.sub(r"\\\r?\n\s*", " ", text).splitlines():
        yield from lines(line, path)


def _option(line: str, named_in: Path) -> str:
    name, _, value = re.sub(r"^(\S+?)[\s=]+", r"\1 ", line).partition(" ")
    if name in ("-e", "--editable"):
        raise EnvironmentSpecError(
            f"{named_in}: '{line}': an editable install cannot be locked; the project's own files travel with the run: "
            "set PYTHONPATH in the command, or list a released package"
        )
    if name not in OPTIONS:
        raise EnvironmentSpecError(f"{named_in}: '{redact(line)}': this option has no meaning here; known: {', '.join(OPTIONS)}")
    if name in ("--find-links", "-f") and not URL.match(value):
        raise EnvironmentSpecError(f"{named_in}: '{line}': a folder of this machine is not where the run is: name a URL")
    return f"{name} {value.strip()}".strip()


def _requirement(line: str, named_in: Path) -> str:
    bare, _, hashes = line.partition(" --hash")
    if URL.match(bare):
        return line if not bare.startswith("file:") else _no_path(line, named_in)
    try:
        found = Requirement(bare)
    except InvalidRequirement:
        if re.match(r"[./~]|\w+[/\\]", bare):
            _no_path(line, named_in)
        raise EnvironmentSpecError(f"{named_in}: '{line}': write a package by name, such as numpy==2.1") from None
    if found.url and found.url.startswith("file:"):
        _no_path(line, named_in)
    return f"{found} --hash{hashes}" if hashes else str(found)


def _no_path(line, named_in):
    raise EnvironmentSpecError(
        f"{named_in}: '{line}': a path of this machine cannot be locked; the project's own files travel with the run: "
        "import them from there, or list a released package"
    )
