"""Read `python_env.yaml` and `conda.yaml`, as far as they list Python and pip packages only."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlflow_backend.environment.key import environment
from mlflow_backend.errors import EnvironmentSpecError, hint
from mlflow_runner.submission import Environment

MLFLOW = {"mlflow", "mlflow-skinny"}
PYTHON_ENV_KEYS = ("name", "python", "build_dependencies", "dependencies")
CONDA_KEYS = ("name", "channels", "dependencies", "prefix", "variables")
NOT_YET = "is not supported yet"


@dataclass(frozen=True)
class Spec:
    """What a project's file asks for; `warnings` are sentences for the user."""

    environment: Environment
    warnings: tuple[str, ...] = ()


def read(project_spec: Any, mlflow_version: str) -> Spec | None:
    """The environment of a parsed project (mlflow's Project), or None when it names none.

    mlflow itself is added, in `mlflow_version`, where the file forgot it. Raises
    EnvironmentSpecError naming the file and the entry that cannot be made.
    """
    if project_spec.docker_env:
        raise EnvironmentSpecError(f"MLproject: docker_env {NOT_YET}: set 'image' in the target and remove docker_env")
    if project_spec.env_config_path is None:
        return None
    path = Path(project_spec.env_config_path)
    content = _load(path)
    python, requirements = (_conda if project_spec.env_type == "conda_env" else _python_env)(content, path)
    names = {canonicalize_name(Requirement(entry).name) for entry in requirements}
    warnings = []
    if not names & MLFLOW:
        requirements.append(f"mlflow=={mlflow_version}")
        warnings.append(f"{path.name} does not list mlflow: adding mlflow=={mlflow_version}")
    return Spec(environment(python, requirements), tuple(warnings))


def _load(path: Path) -> dict[str, Any]:
    """The file with every scalar as text: `python: 3.10` is a version, not the number 3.1."""
    try:
        content = yaml.load(path.read_text(), Loader=yaml.BaseLoader) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise EnvironmentSpecError(
            f"{path}, line {mark.line + 1 if mark else 1}: {getattr(error, 'problem', error)}: correct the YAML"
        ) from None
    if not isinstance(content, dict):
        raise EnvironmentSpecError(f"{path}: write 'dependencies:' with a list below it")
    return content


def _python_env(content, path) -> tuple[str | None, list[str]]:
    _check_keys(content, PYTHON_ENV_KEYS, path)
    requirements: list[str] = []
    for key in ("build_dependencies", "dependencies"):
        for entry in _entries(content, key, path):
            requirements += _pip(entry, path)
    return content.get("python") or None, requirements


def _conda(content, path) -> tuple[str | None, list[str]]:
    _check_keys(content, CONDA_KEYS, path)
    python, requirements = None, []
    for entry in _entries(content, "dependencies", path):
        if isinstance(entry, dict):
            for key, entries in entry.items():
                if key != "pip":
                    raise EnvironmentSpecError(f"{path}: dependencies entry '{key}' {NOT_YET}: only 'pip' may have a list")
                for requirement in entries or []:
                    requirements += _pip(requirement, path)
            continue
        name, version = _conda_package(entry)
        if name == "python":
            python = version or None
        elif name != "pip":
            raise EnvironmentSpecError(
                f"{path}: conda package '{entry}' {NOT_YET} (only python and pip are): list it below 'pip:' if PyPI has it"
            )
    return python, requirements


def _conda_package(entry: str) -> tuple[str, str]:
    """Name and version of a conda match spec such as `conda-forge::python=3.11`."""
    match = re.fullmatch(r"(?:[\w./-]+::)?([\w.-]+)\s*(.*)", entry.strip())
    if not match:
        return entry, ""
    name, version = match[1].lower(), match[2].strip()
    exact = re.fullmatch(r"={0,2}\s*([\d.]+?)(\.?\*)?(=.*)?", version)
    return name, exact[1] if exact else version


def _entries(content, key, path) -> list[Any]:
    entries = content.get(key) or []
    if not isinstance(entries, list):
        raise EnvironmentSpecError(f"{path}: '{key}' must be a list, found {entries!r}")
    return entries


def _pip(entry: Any, path: Path) -> Iterator[str]:
    """The PEP 508 requirements of one line as pip reads them, with `-r FILE` followed."""
    if not isinstance(entry, str):
        raise EnvironmentSpecError(f"{path}: entry {entry!r}: write a package such as numpy==2.1")
    line = re.sub(r"(^|\s)#.*$", "", entry).strip()
    if not line:
        return
    included = re.fullmatch(r"(?:-r|--requirement)[\s=]*(\S+)", line)
    if included:
        yield from _requirements_file(path.parent / included[1], path)
        return
    try:
        yield str(Requirement(line))
    except InvalidRequirement:
        raise EnvironmentSpecError(f"{path}: '{line}' {NOT_YET}: write packages by name, such as numpy==2.1") from None


def _requirements_file(file: Path, named_in: Path) -> Iterator[str]:
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise EnvironmentSpecError(f"{named_in}: {file} cannot be read: {error.strerror}") from None
    for line in lines:
        yield from _pip(line, file)


def _check_keys(content, known, path) -> None:
    for key in content:
        if key not in known:
            raise EnvironmentSpecError(f"{path}: unknown key '{key}'; {hint(key, known)}")
