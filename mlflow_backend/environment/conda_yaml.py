"""`conda.yaml` as conda reads it: channels, match specs, a pip section, and platform selectors."""

import re
from collections.abc import Sequence
from pathlib import Path

from mlflow_backend.environment import requirements
from mlflow_backend.environment.spec import Spec, check_keys, entries, load_yaml
from mlflow_backend.errors import EnvironmentSpecError

KEYS = ("name", "channels", "dependencies", "prefix", "variables", "platforms", "category")
OF_PYTHON = {"python", "pip"}
"""Conda packages that uv stands in for: a file that lists no others needs no channel."""
SELECTOR = re.compile(r"^(\s*-\s[^#]*?)\s+#\s*\[([^\]]+)\]\s*$")


def read(path: Path, subdir: str) -> Spec:
    """The Spec of the file for the platform `subdir`. Raises EnvironmentSpecError naming file and entry."""
    content = load_yaml(path, _selected(path, subdir))
    check_keys(content, KEYS, path)
    conda: list[str] = []
    pip: list[str] = []
    for entry in entries(content, "dependencies", path):
        if isinstance(entry, dict):
            for key, listed in entry.items():
                if key != "pip":
                    raise EnvironmentSpecError(f"{path}: dependencies entry '{key}': only 'pip' may have a list below it")
                for requirement in listed or []:
                    pip += requirements.lines(requirement, path)
        elif isinstance(entry, str) and entry.strip():
            conda.append(re.sub(r"\s+#.*$", "", entry.strip()))
        else:
            raise EnvironmentSpecError(f"{path}: dependencies entry {entry!r}: write a package such as numpy=2.1")
    variables = content.get("variables") or {}
    if not isinstance(variables, dict):
        raise EnvironmentSpecError(f"{path}: 'variables' must map names to values, found {variables!r}")
    parsed = [name_and_version(entry) for entry in conda]
    if {name for name, _ in parsed} <= OF_PYTHON:
        python = next((version for name, version in parsed if name == "python"), None)
        return Spec(path, python or None, pip=tuple(pip), variables=variables)
    if pip and not any(name == "python" for name, _ in parsed):
        conda.append("python")
    channels = tuple(str(channel) for channel in entries(content, "channels", path))
    return Spec(path, None, channels, tuple(conda), tuple(pip), variables)


def name_and_version(entry: str) -> tuple[str, str]:
    """Name and version of a conda match spec such as `conda-forge::python=3.11`; an exact or prefix version is bare."""
    match = re.fullmatch(r"(?:\S+::)?([\w.-]+)\s*(.*)", entry.strip())
    if not match:
        return entry, ""
    name, version = match[1].lower(), match[2].strip()
    exact = re.fullmatch(r"={0,2}\s*([\d.]+?)(\.?\*)?(=.*)?", version)
    return name, exact[1] if exact else version


def _selected(path: Path, subdir: str) -> str:
    """The file's text without the entries that are for other platforms (`- package  # [osx]`, as conda-lock reads them)."""
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        match = SELECTOR.match(line.rstrip("\r\n"))
        if match and not _holds(match[2], _facts(subdir), path):
            continue
        kept.append(line)
    return "".join(kept)


def _facts(subdir: str) -> set[str]:
    """The words that are true of a platform in a selector."""
    system, _, machine = subdir.partition("-")
    arch = {"64": "x86_64"}.get(machine, machine)
    words = {system, arch, f"{system}{machine}", subdir, *({"unix"} if system != "win" else ())}
    return words | ({"arm64"} if machine in ("arm64", "aarch64") else set())


KNOWN = {
    word for subdir in ("linux-64", "linux-aarch64", "linux-ppc64le", "osx-64", "osx-arm64", "win-64") for word in _facts(subdir)
}  # fmt: skip


def _holds(selector: str, facts: Sequence[str], path: Path) -> bool:
    """Whether `selector` (words with `not`, `and`, `or`; `not` binds tightest) holds."""

    def term(words: list[str]) -> bool:
        negated = words[:1] == ["not"]
        if len(words) != 1 + negated or words[-1] not in KNOWN:
            raise EnvironmentSpecError(
                f"{path}: selector [{selector}]: write {', '.join(sorted(KNOWN))}, with 'not', 'and', 'or' between them"
            )
        return (words[-1] in facts) != negated

    options = re.split(r"\bor\b", selector)
    return any([all([term(part.split()) for part in re.split(r"\band\b", option)]) for option in options])
