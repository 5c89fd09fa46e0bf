"""What a project's file asks for, whichever kind of file it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlflow_backend.errors import EnvironmentSpecError, hint

MLFLOW = {"mlflow", "mlflow-skinny"}


@dataclass(frozen=True)
class Spec:
    """Packages asked for, before anything is solved.

    `python` is a version or a PEP 440 specifier, and None when the file names none.
    `conda` holds match specs (conda's own syntax) from `channels`, `pip` the lines of
    a requirements file with what `-r` names put in. `variables` are set for the command.
    """

    source: Path
    python: str | None = None
    channels: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The canonical names of all packages that are asked for by name."""
        return {canonicalize_name(name) for name in map(_name, (*self.conda, *self.pip)) if name}


def with_mlflow(spec: Spec, version: str) -> tuple[Spec, str | None]:
    """The Spec with `mlflow` in `version` where it was forgotten, and the warning that says so."""
    if spec.names & MLFLOW:
        return spec, None
    added = f"mlflow=={version}"
    return replace(spec, pip=(*spec.pip, added)), f"{spec.source.name} does not list mlflow: adding {added}"


def load_yaml(path: Path, text: str | None = None) -> dict[str, Any]:
    """The file with every scalar as text: `python: 3.10` is a version, not the number 3.1."""
    try:
        content = yaml.load(path.read_text() if text is None else text, Loader=yaml.BaseLoader) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise EnvironmentSpecError(
            f"{path}, line {mark.line + 1 if mark else 1}: {getattr(error, 'problem', error)}: correct the YAML"
        ) from None
    if not isinstance(content, dict):
        raise EnvironmentSpecError(f"{path}: write 'dependencies:' with a list below it")
    return content


def check_keys(content: Mapping[str, Any], known: Sequence[str], path: Path) -> None:
    for key in content:
        if key not in known:
            raise EnvironmentSpecError(f"{path}: unknown key '{key}'; {hint(key, known)}")


def entries(content: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    found = content.get(key) or []
    if not isinstance(found, list):
        raise EnvironmentSpecError(f"{path}: '{key}' must be a list, found {found!r}")
    return found


def _name(entry: str) -> str | None:
    """The package's name in a match spec or a requirement line; None of an option or a URL."""
    try:
        return Requirement(entry).name
    except InvalidRequirement:
        words = entry.rpartition("::")[2].replace("=", " ").replace("<", " ").replace(">", " ").replace("[", " ").split()
        return words[0] if words and not entry.startswith("-") and "/" not in words[0] else None
