"""What a project's environment file requests, in one form for all kinds of files."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from mlflow_backend import yaml_files
from mlflow_backend.environment.checks import quote
from mlflow_backend.environment.toml_text import Table
from mlflow_backend.errors import EnvironmentSpecError, nearest

MLFLOW = {"mlflow", "mlflow-skinny"}


@dataclass(frozen=True)
class Spec:
    """The requested packages, before anything is solved.

    `python` is a version or a PEP 440 specifier, and None if the file names none. `conda` holds
    match specs (conda's own syntax) from `channels`, `pip` the lines of a requirements file in
    which the files that `-r` names are inlined. `variables` are set for the command.
    """

    source: Path
    python: str | None = None
    channels: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def map_lines(self, change: Callable[[str], str]) -> "Spec":
        """The Spec with `change` applied to every line that may hold an address."""
        return replace(
            self,
            channels=tuple(map(change, self.channels)),
            conda=tuple(map(change, self.conda)),
            pip=tuple(map(change, self.pip)),
        )

    @property
    def names(self) -> set[str]:
        """The canonical names of all packages that are requested by name."""
        return {canonicalize_name(split_entry(entry)[0]) for entry in (*self.conda, *self.pip)}


def split_entry(entry: str) -> tuple[str, str]:
    """Name and version of a match spec or requirement such as `conda-forge::python=3.11`: an exact
    or prefix version without operator, a range with it.
    """
    match = re.fullmatch(r"(?:\S+::)?([\w.-]+)\s*(.*)", entry.strip())
    if not match:
        return entry, ""
    name, version = match[1].lower(), match[2].strip()
    exact = re.fullmatch(r"={0,2}\s*([\d.]+?)(\.?\*)?(=.*)?", version)
    return name, exact[1] if exact else version


def with_mlflow(spec: Spec, version: str) -> tuple[Spec, str | None]:
    """The Spec with `mlflow` in `version` if it lists no mlflow, and the warning about that."""
    if spec.names & MLFLOW:
        return spec, None
    added = f"mlflow=={version}"
    return replace(spec, pip=(*spec.pip, added)), (
        f"{spec.source.name} does not list mlflow: adding {added}"
    )


def load_yaml(text: str, path: Path) -> dict[str, Any]:
    """The content of the file `path` with every scalar as text: `python: 3.10` is a version, not
    the number 3.1.

    Raises EnvironmentSpecError for a text that is not YAML, or has no keys on the first level.
    """
    content = yaml_files.parse(text, str(path), EnvironmentSpecError, as_text=True).content or {}
    if not isinstance(content, dict):
        raise EnvironmentSpecError(
            f"{path}: has no keys on its first level",
            code="InvalidFile",
            hint="write a key such as 'dependencies:' with a list below it",
        )
    return content


def check_keys(content: Table, allowed: Sequence[str], path: Path) -> None:
    """Raise EnvironmentSpecError for a key of the file `path` that is not in `allowed`."""
    for key in content:
        if key not in allowed:
            raise EnvironmentSpecError(
                f"{path}: unknown key {quote(key)}",
                code="UnknownField",
                hint=nearest(key, allowed),
            )


def entries(content: Table, key: str, path: Path) -> list[Any]:
    """The list below `key`; empty without the key.

    Raises EnvironmentSpecError for anything else.
    """
    value = content.get(key) or []
    if not isinstance(value, list):
        raise EnvironmentSpecError(
            f"{path}: '{key}' must be a list, not {quote(value)}", code="InvalidFile"
        )
    return value


def scalar(content: Table, key: str, path: Path) -> str | None:
    """The text below `key`; None without the key.

    Raises EnvironmentSpecError for a list or a mapping.
    """
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise EnvironmentSpecError(
            f"{path}: '{key}' must be one value, not {quote(value)}", code="InvalidFile"
        )
    return value or None
