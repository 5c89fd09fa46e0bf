"""`conda.yaml` as conda reads it: channels, match specs, a pip section, and platform selectors."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_backend.environment.asked import project_files
from mlflow_backend.environment.asked.requirements import Reader
from mlflow_backend.environment.asked.spec import Spec, check_keys, entries, load_yaml
from mlflow_backend.environment.checks import shown
from mlflow_backend.environment.urls import is_plain
from mlflow_backend.errors import EnvironmentSpecError

KEYS = ("name", "channels", "dependencies", "prefix", "variables", "platforms", "category")
OF_PYTHON = {"python", "pip"}
"""Conda packages that uv stands in for: a file that lists no others needs no channel."""
SELECTOR = re.compile(r"(?<=\s)#\s*\[([^\]]+)\]\s*$")
COMMENT = re.compile(r"(?<=\s)#.*$")


def read(path: Path, root: Path, subdir: str) -> Spec:
    """The Spec of the file, of a project in the folder `root`, for the platform `subdir`.

    Raises EnvironmentSpecError naming file and entry.
    """
    content = load_yaml(_selected(project_files.read(path, root), path, subdir), path)
    check_keys(content, KEYS, path)
    conda: list[str] = []
    pip: list[str] = []
    reader = Reader(root)
    for entry in entries(content, "dependencies", path):
        if isinstance(entry, dict):
            for key in entry:
                if key != "pip":
                    raise EnvironmentSpecError(
                        f"{path}: dependencies entry {shown(key)}: only 'pip' may have a list "
                        "below it"
                    )
                pip += [
                    line
                    for requirement in entries(entry, key, path)
                    for line in reader.lines(requirement, path)
                ]
        else:
            conda.append(_match_spec(entry, path))
    variables = _variables(content, path)
    channels = tuple(_channel(entry, path) for entry in entries(content, "channels", path))
    parsed = [name_and_version(entry) for entry in conda]
    if {name for name, _ in parsed} <= OF_PYTHON:
        python = next((version for name, version in parsed if name == "python"), None)
        return Spec(path, python or None, pip=tuple(pip), variables=variables)
    if pip and not any(name == "python" for name, _ in parsed):
        conda.append("python")
    return Spec(path, None, channels, tuple(conda), tuple(pip), variables)


def _match_spec(entry: Any, path: Path) -> str:
    if not isinstance(entry, str) or not entry.strip() or len(entry.strip().splitlines()) > 1:
        raise EnvironmentSpecError(
            f"{path}: dependencies entry {shown(entry)}: write a package such as numpy=2.1"
        )
    return COMMENT.sub("", entry.strip()).strip()


def _channel(entry: Any, path: Path) -> str:
    if not isinstance(entry, str) or not is_plain(entry):
        raise EnvironmentSpecError(
            f"{path}: channels entry {shown(entry)}: write a channel's name or URL"
        )
    return entry


def _variables(content: Mapping[str, Any], path: Path) -> dict[str, str]:
    found = content.get("variables") or {}
    if not isinstance(found, dict):
        raise EnvironmentSpecError(
            f"{path}: 'variables' must map names to values, found {shown(found)}"
        )
    for name, value in found.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise EnvironmentSpecError(
                f"{path}: 'variables': {shown(name)} is not the name of a variable"
            )
        if not isinstance(value, str) or "\0" in value:
            raise EnvironmentSpecError(
                f"{path}: 'variables': {name} must have one value, found {shown(value)}"
            )
    return found


def name_and_version(entry: str) -> tuple[str, str]:
    """Name and version of a conda match spec such as `conda-forge::python=3.11`; an exact or prefix
    version is bare.
    """
    match = re.fullmatch(r"(?:\S+::)?([\w.-]+)\s*(.*)", entry.strip())
    if not match:
        return entry, ""
    name, version = match[1].lower(), match[2].strip()
    exact = re.fullmatch(r"={0,2}\s*([\d.]+?)(\.?\*)?(=.*)?", version)
    return name, exact[1] if exact else version


def _selected(text: str, path: Path, subdir: str) -> str:
    """The text of the file `path` without the entries that are for other platforms (`- package #
    [osx]`, as conda-lock reads them).
    """
    kept = []
    for line in text.splitlines(keepends=True):
        match = SELECTOR.search(line.rstrip("\r\n"))
        is_entry = match and re.match(r"\s*-\s", line) and "#" not in line[: match.start()]
        if is_entry and not _holds(match[1], _facts(subdir), path):
            continue
        kept.append(line)
    return "".join(kept)


def _facts(subdir: str) -> set[str]:
    """The words that are true of a platform in a selector."""
    system, _, machine = subdir.partition("-")
    arch = {"64": "x86_64"}.get(machine, machine)
    words = {system, arch, f"{system}{machine}", subdir, *({"unix"} if system != "win" else ())}
    return words | ({"arm64"} if machine in ("arm64", "aarch64") else set())


SUBDIRS = ("linux-64", "linux-aarch64", "linux-ppc64le", "osx-64", "osx-arm64", "win-64")
KNOWN = {word for subdir in SUBDIRS for word in _facts(subdir)}


def _holds(selector: str, facts: Sequence[str], path: Path) -> bool:
    """Whether `selector` (words with `not`, `and`, `or`; `not` binds tightest) holds."""

    def term(words: list[str]) -> bool:
        negated = words[:1] == ["not"]
        if len(words) != 1 + negated or words[-1] not in KNOWN:
            raise EnvironmentSpecError(
                f"{path}: selector [{selector}]: write {', '.join(sorted(KNOWN))}, with 'not', "
                "'and', 'or' between them"
            )
        return (words[-1] in facts) != negated

    options = re.split(r"\bor\b", selector)
    return any(
        [all([term(part.split()) for part in re.split(r"\band\b", option)]) for option in options]
    )
