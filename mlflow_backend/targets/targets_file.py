"""The targets file `mlflow-compute.yaml`: where it is searched for, and how targets are resolved.

A file of the project is not used: a project must not choose where credentials are sent.
"""

import functools
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_backend import yaml_files
from mlflow_backend.errors import ConfigError, nearest
from mlflow_backend.targets import allowed, trust
from mlflow_backend.targets.target import Target
from mlflow_backend.targets.validation import validate

FILE_NAME = "mlflow-compute.yaml"
VARIABLE = "MLFLOW_COMPUTE_CONFIG"
KEYS = ("tracking_uri", "targets")
MOST_BYTES = 1_000_000
MOST_EXTENDS = 50


@dataclass(frozen=True)
class Targets:
    """The validated targets of one source (a file's path, or a phrase for a ConfigMap)."""

    source: str
    targets: Mapping[str, Target]


@dataclass(frozen=True)
class Files:
    """The files in use, nearest first, and a line for each file that is not used because others may
    have written it.
    """

    sources: tuple[Targets, ...]
    refused: tuple[str, ...]


def search_path(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The paths of possible files, nearest first: only the one that MLFLOW_COMPUTE_CONFIG names, or
    else those in the current directory, the directories above it and the user's config directory.
    """
    if named := environ.get(VARIABLE):
        return [Path(named).expanduser()]
    here = Path.cwd()
    return [*(folder / FILE_NAME for folder in (here, *here.parents)), _user_file()]


def _user_file() -> Path:
    import platformdirs

    return platformdirs.user_config_path("mlflow-compute") / FILE_NAME


def load_files(project: Path | None, environ: Mapping[str, str] = os.environ) -> Files:
    """The existing files.

    A file in the work tree of `project` (the folder of the project that is run), or one that others
    can write, is used only if the user allowed its present text. A file that MLFLOW_COMPUTE_CONFIG
    names is always used. Raises ConfigError with file and line.
    """
    if environ.get(VARIABLE):
        path = search_path(environ)[0]
        if not os.path.isfile(path):
            raise ConfigError(
                f"{VARIABLE}: there is no file {path}",
                code="NotFound",
                hint="correct the variable or unset it",
            )
        return Files((parse(_read(path), str(path)),), ())
    sources, refused = [], []
    for path in dict.fromkeys(search_path(environ)):
        if not os.path.isfile(path):
            continue
        reason = trust.reason_against(path, None if path == _user_file() else project)
        text = None if reason and not allowed.was_allowed(path) else _read(path)
        if text is None or (reason and not allowed.is_allowed(path, text)):
            changed = "" if text is None else " and has changed since it was allowed"
            refused.append(
                f"{path} is not used: {reason}{changed}; to use it: mlflow-compute targets allow "
                f"{shlex.quote(str(path))}"
            )
        else:
            sources.append(parse(text, str(path)))
    return Files(tuple(sources), tuple(refused))


def allow(path: Path) -> Targets:
    """Allow the file with its present text.

    Raises ConfigError if it is not a targets file.
    """
    text = _read(path)
    targets = parse(text, str(path))
    try:
        allowed.allow(path, text)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or path}: cannot be written: {error.strerror}", code="UnwritableFile"
        ) from None
    return targets


def _read(path: Path) -> str:
    return yaml_files.read(path, ConfigError, MOST_BYTES)


def parse(text: str, source: str) -> Targets:
    """The targets in the YAML `text`, `extends` resolved.

    Raises ConfigError that names source and line.
    """
    content, root = yaml_files.parse(text, source, ConfigError)

    def describe(*path: Any) -> str:
        return f"{source}, line {yaml_files.line_of(root, path)}, {'.'.join(map(str, path))}"

    if content is None:
        return Targets(source, {})
    if not isinstance(content, dict):
        raise ConfigError(
            f"{source}, line 1: {content!r:.50} is not a mapping",
            code="InvalidFile",
            hint="write 'targets:' with a target's name below it",
        )
    for key in content:
        if key not in KEYS:
            raise ConfigError(
                f"{describe(key)}: unknown key '{key}'",
                code="UnknownField",
                hint=nearest(str(key), KEYS),
            )
    raw = content.get("targets") or {}
    _check_structure(raw, describe)
    targets = {}
    for name in raw:
        merged = _resolve(raw, name, describe)
        if content.get("tracking_uri"):
            merged.setdefault("tracking_uri", content["tracking_uri"])
        targets[name] = validate(Target, merged, functools.partial(describe, "targets", name))
    return Targets(source, targets)


def _check_structure(raw: Any, describe: Callable[..., str]) -> None:
    """Raises ConfigError unless `raw` maps names to mappings."""
    for name, fields in {"": raw, **(raw if isinstance(raw, dict) else {})}.items():
        if not isinstance(fields, dict):
            path = ("targets", name) if name else ("targets",)
            raise ConfigError(
                f"{describe(*path)}: {fields!r:.50} is not a mapping",
                code="InvalidFile",
                hint="write fields such as 'image: NAME' below it",
            )
    for name in raw:
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"{describe('targets', name)}: a target's name must be text",
                code="InvalidFile",
                hint="write it in quotes",
            )


def _resolve(
    raw: Mapping[str, Mapping[str, Any]],
    name: str,
    describe: Callable[..., str],
    children: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The fields of a target with those that it inherits; `children` extend it, outermost first."""
    fields = dict(raw[name])
    parent = fields.pop("extends", None)
    if parent is None:
        return fields
    place = describe("targets", name, "extends")
    if not isinstance(parent, str):
        raise ConfigError(
            f"{place}: {parent!r:.50} is not a name",
            hint="write the name of one target of this file",
        )
    if parent not in raw:
        raise ConfigError(
            f"{place}: there is no target '{parent}' in this file",
            code="UnknownTarget",
            hint=nearest(parent, raw),
        )
    if parent in (*children, name):
        raise ConfigError(
            f"{place}: {' -> '.join((*children, name, parent))} is circular",
            hint="remove one 'extends'",
        )
    if len(children) >= MOST_EXTENDS:
        raise ConfigError(
            f"{place}: more than {MOST_EXTENDS} targets extend one another",
            hint="write the fields instead",
        )
    return overlay(_resolve(raw, parent, describe, (*children, name)), fields)


def overlay(base: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `above`: mappings are merged, other values replaced."""
    merged = dict(base)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if both else value
    return merged
