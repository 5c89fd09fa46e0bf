"""The targets file `mlflow-compute.yaml`: where it is looked for, and how its targets are resolved.

Never taken from a project: its files must not choose where credentials go.
"""

import os
import shlex
from collections.abc import Mapping
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
    """The validated targets of one source (a file's path, or the words for a ConfigMap)."""

    source: str
    targets: Mapping[str, Target]


@dataclass(frozen=True)
class Files:
    """The files in use, nearest first, and a line for each that is not used because others may have
    written it.
    """

    sources: tuple[Targets, ...]
    refused: tuple[str, ...]


def search_path(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Every place a file is looked for, nearest first: the one named by MLFLOW_COMPUTE_CONFIG
    alone, else the current directory and those above it, then the user's config directory.
    """
    if named := environ.get(VARIABLE):
        return [Path(named).expanduser()]
    here = Path.cwd()
    return [*(folder / FILE_NAME for folder in (here, *here.parents)), _user_file()]


def _user_file() -> Path:
    import platformdirs

    return platformdirs.user_config_path("mlflow-compute") / FILE_NAME


def load_files(project: Path | None, environ: Mapping[str, str] = os.environ) -> Files:
    """The files that exist, but none of the work tree of `project` (the folder of the one that is
    run) and none that others can write, unless the user allowed it as it is. A file that
    MLFLOW_COMPUTE_CONFIG names is used wherever it is. Raises ConfigError with file and line.
    """
    if environ.get(VARIABLE):
        path = search_path(environ)[0]
        if not os.path.isfile(path):
            raise ConfigError(
                f"{VARIABLE}: there is no file {path}: correct the variable or unset it"
            )
        return Files((_load(path),), ())
    sources, refused = [], []
    for path in dict.fromkeys(search_path(environ)):
        if not os.path.isfile(path):
            continue
        reason = trust.reason_against(path, None if path == _user_file() else project)
        text = None if reason and not allowed.is_known(path) else _text(path)
        if text is None or reason and not allowed.is_allowed(path, text):
            changed = "" if text is None else " and has changed since it was allowed"
            refused.append(
                f"{path} is not used: {reason}{changed}; to use it: mlflow-compute targets allow "
                f"{shlex.quote(str(path))}"
            )
        else:
            sources.append(parse(text, str(path)))
    return Files(tuple(sources), tuple(refused))


def allow(path: Path) -> Targets:
    """Use the file from now on as it is now, wherever it is.

    Raises ConfigError where it holds no targets file.
    """
    text = _text(path)
    targets = parse(text, str(path))
    try:
        allowed.allow(path, text)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or path}: cannot be written: {error.strerror}"
        ) from None
    return targets


def _load(path: Path) -> Targets:
    return parse(_text(path), str(path))


def _text(path: Path) -> str:
    return yaml_files.read(path, ConfigError, MOST_BYTES)


def parse(text: str, source: str) -> Targets:
    """The targets in the YAML `text`, `extends` resolved.

    Raises ConfigError naming source and line.
    """
    content, root = yaml_files.parse(text, source, ConfigError)

    def where(*path) -> str:
        return f"{source}, line {yaml_files.line_of(root, path)}, {'.'.join(map(str, path))}"

    if content is None:
        return Targets(source, {})
    if not isinstance(content, dict):
        raise ConfigError(f"{source}, line 1: write 'targets:' with a target's name below it")
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"{where(key)}: unknown key '{key}'; {nearest(str(key), KEYS)}")
    raw = content.get("targets") or {}
    for name, fields in {"": raw, **(raw if isinstance(raw, dict) else {})}.items():
        if not isinstance(fields, dict):
            place = ("targets", name) if name else ("targets",)
            raise ConfigError(
                f"{where(*place)}: write fields such as 'image: NAME' below it, found "
                f"{fields!r:.50}"
            )
    for name in raw:
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"{where('targets', name)}: a target's name is text: write it in quotes"
            )
    targets = {}
    for name in raw:
        merged = _resolve(raw, name, where)
        if content.get("tracking_uri"):
            merged.setdefault("tracking_uri", content["tracking_uri"])
        targets[name] = validate(
            Target, merged, lambda path, name=name: where("targets", name, *path)
        )
    return Targets(source, targets)


def _resolve(raw, name, where, seen=()) -> dict[str, Any]:
    fields = dict(raw[name])
    parent = fields.pop("extends", None)
    if parent is None:
        return fields
    if not isinstance(parent, str):
        raise ConfigError(
            f"{where('targets', name, 'extends')}: write the name of one target of this file, "
            f"found {parent!r:.50}"
        )
    if parent not in raw:
        raise ConfigError(
            f"{where('targets', name, 'extends')}: there is no target '{parent}' in this file; "
            f"{nearest(str(parent), raw)}"
        )
    if parent in (*seen, name):
        raise ConfigError(
            f"{where('targets', name, 'extends')}: {' -> '.join((*seen, name, parent))} is a "
            "circle: remove one 'extends'"
        )
    if len(seen) >= MOST_EXTENDS:
        raise ConfigError(
            f"{where('targets', name, 'extends')}: is the {MOST_EXTENDS + 1}th 'extends' in a row: "
            "write the fields instead"
        )
    return overlay(_resolve(raw, parent, where, (*seen, name)), fields)


def overlay(base: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `above`: mappings are merged, all else is replaced."""
    merged = dict(base)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if both else value
    return merged
