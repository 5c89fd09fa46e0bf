"""`conda.yaml` as conda reads it: channels, match specs, a pip section, and platform selectors."""

import re
from collections.abc import Set
from pathlib import Path
from typing import Any

from mlflow_backend.environment.checks import quote
from mlflow_backend.environment.parsers import project_files
from mlflow_backend.environment.parsers.requirements import Reader
from mlflow_backend.environment.parsers.spec import (
    Spec,
    check_keys,
    entries,
    load_yaml,
    split_entry,
)
from mlflow_backend.environment.toml_text import Table
from mlflow_backend.environment.urls import is_plain
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_runner.contract import machines

KEYS = ("name", "channels", "dependencies", "prefix", "variables", "platforms", "category")
OF_PYTHON = {"python", "pip"}
"""Conda packages that uv replaces: a file that lists no others needs no channel."""
ENTRY = re.compile(r"\s*-\s")
SELECTOR = re.compile(r"(?<=\s)#\s*\[([^\]]+)\]\s*$")
COMMENT = re.compile(r"(?<=\s)#.*$")


def read(path: Path, root: Path, subdir: str) -> Spec:
    """The Spec of the file, of a project in the folder `root`, for the platform `subdir`.

    Raises EnvironmentSpecError naming file and entry.
    """
    content = load_yaml(_select(project_files.read(path, root), path, subdir), path)
    check_keys(content, KEYS, path)
    conda, pip = _dependencies(content, path, root)
    variables = _variables(content, path)
    channels = tuple(_channel(entry, path) for entry in entries(content, "channels", path))
    versions = dict(map(split_entry, reversed(conda)))
    if versions.keys() <= OF_PYTHON:
        return Spec(path, versions.get("python") or None, pip=tuple(pip), variables=variables)
    if pip and "python" not in versions:
        conda.append("python")
    return Spec(path, None, channels, tuple(conda), tuple(pip), variables)


def _dependencies(content: Table, path: Path, root: Path) -> tuple[list[str], list[str]]:
    """The match specs, and the lines of the pip section."""
    conda: list[str] = []
    pip: list[str] = []
    reader = Reader(root)
    for entry in entries(content, "dependencies", path):
        if not isinstance(entry, dict):
            conda.append(_match_spec(entry, path))
            continue
        for key in entry:
            if key != "pip":
                raise EnvironmentSpecError(
                    f"{path}: dependencies entry {quote(key)}: only 'pip' may have a list below it"
                )
            for requirement in entries(entry, key, path):
                pip += reader.lines(requirement, path)
    return conda, pip


def _match_spec(entry: Any, path: Path) -> str:
    if not isinstance(entry, str) or not entry.strip() or len(entry.strip().splitlines()) > 1:
        raise EnvironmentSpecError(
            f"{path}: dependencies entry {quote(entry)} is not a match spec",
            hint="write a package such as numpy=2.1",
        )
    return COMMENT.sub("", entry.strip()).strip()


def _channel(entry: Any, path: Path) -> str:
    if not isinstance(entry, str) or not is_plain(entry):
        raise EnvironmentSpecError(
            f"{path}: channels entry {quote(entry)} is not a channel",
            hint="write a channel's name or URL",
        )
    return entry


def _variables(content: Table, path: Path) -> dict[str, str]:
    variables = content.get("variables") or {}
    if not isinstance(variables, dict):
        raise EnvironmentSpecError(
            f"{path}: 'variables' must map names to values, not be {quote(variables)}",
            code="InvalidFile",
        )
    for name, value in variables.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise EnvironmentSpecError(
                f"{path}: 'variables': {quote(name)} is not the name of a variable",
                code="InvalidValue",
            )
        if not isinstance(value, str) or "\0" in value:
            raise EnvironmentSpecError(
                f"{path}: 'variables': {name} must have one value, not {quote(value)}",
                code="InvalidValue",
            )
    return variables


def _select(text: str, path: Path, subdir: str) -> str:
    """The text of the file `path` without the entries for other platforms (`- package # [osx]`,
    the selectors of conda-lock).
    """
    words = _true_words(subdir)
    return "".join(
        line for line in text.splitlines(keepends=True) if _is_selected(line, words, path)
    )


def _is_selected(line: str, words: Set[str], path: Path) -> bool:
    match = SELECTOR.search(line.rstrip("\r\n"))
    if not match or not ENTRY.match(line) or "#" in line[: match.start()]:
        return True
    return _evaluate(match[1], words, path)


def _true_words(subdir: str) -> set[str]:
    """The words that hold on a platform in a selector."""
    system, _, name = subdir.partition("-")
    machine = machines.find(name)
    words = {system, "x86_64" if name == "64" else name, f"{system}{name}", subdir}
    words |= {"unix"} if system != "win" else set()
    return words | ({"arm64"} if machine and machine.kubernetes == "arm64" else set())


SUBDIRS = ("linux-64", "linux-aarch64", "linux-ppc64le", "osx-64", "osx-arm64", "win-64")
WORDS = {word for subdir in SUBDIRS for word in _true_words(subdir)}


def _evaluate(selector: str, words: Set[str], path: Path) -> bool:
    """Whether `selector` holds: words with `not`, `and`, `or`; `not` binds tightest.

    Raises EnvironmentSpecError for an unknown word.
    """
    options = [
        [part.split() for part in re.split(r"\band\b", option)]
        for option in re.split(r"\bor\b", selector)
    ]
    for term in (term for option in options for term in option):
        if len(term) != 1 + (term[:1] == ["not"]) or term[-1] not in WORDS:
            raise EnvironmentSpecError(
                f"{path}: cannot read the selector [{selector}]",
                hint=f"write {', '.join(sorted(WORDS))}, with 'not', 'and', 'or' between them",
            )
    return any(
        all((term[-1] in words) != (term[0] == "not") for term in option) for option in options
    )
