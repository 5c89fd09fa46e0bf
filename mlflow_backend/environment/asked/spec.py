"""What a project's file asks for, whichever kind of file it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlflow_backend import yaml_files
from mlflow_backend.environment.checks import shown
from mlflow_backend.errors import EnvironmentSpecError, nearest

MLFLOW = {"mlflow", "mlflow-skinny"}


@dataclass(frozen=True)
class Spec:
    """Packages asked for, before anything is solved.

    `python` is a version or a PEP 440 specifier, and None when the file names none. `conda` holds
    match specs (conda's own syntax) from `channels`, `pip` the lines of a requirements file with
    what `-r` names put in. `variables` are set for the command.
    """

    source: Path
    python: str | None = None
    channels: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def expanded(self, change: Callable[[str], str]) -> "Spec":
        """The Spec with `change` applied to every line that may hold an address."""
        return replace(
            self,
            channels=tuple(map(change, self.channels)),
            conda=tuple(map(change, self.conda)),
            pip=tuple(map(change, self.pip)),
        )

    @property
    def names(self) -> set[str]:
        """The canonical names of all packages that are asked for by name."""
        return {canonicalize_name(name) for name in map(_name, (*self.conda, *self.pip)) if name}


def with_mlflow(spec: Spec, version: str) -> tuple[Spec, str | None]:
    """The Spec with `mlflow` in `version` where it was forgotten, and the warning that says so."""
    if spec.names & MLFLOW:
        return spec, None
    added = f"mlflow=={version}"
    return replace(spec, pip=(*spec.pip, added)), (
        f"{spec.source.name} does not list mlflow: adding {added}"
    )


def load_yaml(text: str, path: Path) -> dict[str, Any]:
    """The content of the file `path` with every scalar as text: `python: 3.10` is a version, not
    the number 3.1.

    Raises EnvironmentSpecError for what is not YAML, or has no keys on the first level.
    """
    content = yaml_files.parse(text, str(path), EnvironmentSpecError, as_text=True).content or {}
    if not isinstance(content, dict):
        raise EnvironmentSpecError(
            f"{path}: must have keys on its first level, such as 'dependencies:' with a list below "
            "it"
        )
    return content


def check_keys(content: Mapping[str, Any], known: Sequence[str], path: Path) -> None:
    for key in content:
        if key not in known:
            raise EnvironmentSpecError(f"{path}: unknown key {shown(key)}; {nearest(key, known)}")


def entries(content: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    """The list below `key`; empty where there is none.

    Raises EnvironmentSpecError for anything else.
    """
    found = content.get(key) or []
    if not isinstance(found, list):
        raise EnvironmentSpecError(f"{path}: '{key}' must be a list, found {shown(found)}")
    return found


def scalar(content: Mapping[str, Any], key: str, path: Path) -> str | None:
    """The text below `key`; None where there is none.

    Raises EnvironmentSpecError for a list or a mapping.
    """
    found = content.get(key)
    if found is not None and not isinstance(found, str):
        raise EnvironmentSpecError(f"{path}: '{key}' must be one value, found {shown(found)}")
    return found or None


def _name(entry: str) -> str | None:
    """The package's name in a match spec or a requirement line; None of an option or a URL."""
    try:
        return Requirement(entry).name
    except InvalidRequirement:
        words = (
            entry.rpartition("::")[2]
            .replace("=", " ")
            .replace("<", " ")
            .replace(">", " ")
            .replace("[", " ")
            .split()
        )
        return words[0] if words and not entry.startswith("-") and "/" not in words[0] else None
