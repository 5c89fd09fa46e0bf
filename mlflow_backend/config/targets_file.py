"""The targets file `mlflow-compute.yaml`: where it is looked for, and how its targets are resolved.

Never taken from a project: its files must not choose where credentials go.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlflow_backend.config.target import Target
from mlflow_backend.config.validation import validate
from mlflow_backend.errors import ConfigError, hint

FILE_NAME = "mlflow-compute.yaml"
VARIABLE = "MLFLOW_COMPUTE_CONFIG"
KEYS = ("tracking_uri", "targets")


@dataclass(frozen=True)
class Targets:
    """The validated targets of one source (a file's path, or the words for a ConfigMap)."""

    source: str
    targets: Mapping[str, Target]


def search_path(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Every place a file is looked for, nearest first: the one named by MLFLOW_COMPUTE_CONFIG alone,
    else the current directory and those above it, then the user's config directory."""
    if named := environ.get(VARIABLE):
        return [Path(named).expanduser()]
    import platformdirs

    here = Path.cwd()
    return [*(folder / FILE_NAME for folder in (here, *here.parents)), platformdirs.user_config_path("mlflow-compute") / FILE_NAME]


def load_files(environ: Mapping[str, str] = os.environ) -> list[Targets]:
    """The files that exist, nearest first. Raises ConfigError with file and line."""
    found = []
    for path in search_path(environ):
        try:
            text = path.read_text()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if environ.get(VARIABLE):
                raise ConfigError(f"{VARIABLE}: there is no file {path}: correct the variable or unset it") from None
            continue
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        found.append(parse(text, str(path)))
    return found


def parse(text: str, source: str) -> Targets:
    """The targets in the YAML `text`, `extends` resolved. Raises ConfigError naming source and line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{line}: {getattr(error, 'problem', None) or error}: correct the YAML") from None

    def where(*path) -> str:
        return f"{source}, line {_line(root, path)}, {'.'.join(map(str, path))}"

    if content is None:
        return Targets(source, {})
    if not isinstance(content, dict):
        raise ConfigError(f"{source}, line 1: write 'targets:' with a target's name below it")
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"{where(key)}: unknown key '{key}'; {hint(str(key), KEYS)}")
    raw = content.get("targets") or {}
    for name, fields in {"": raw, **(raw if isinstance(raw, dict) else {})}.items():
        if not isinstance(fields, dict):
            place = ("targets", name) if name else ("targets",)
            raise ConfigError(f"{where(*place)}: write fields such as 'image: NAME' below it, found {fields!r}")
    targets = {}
    for name in raw:
        merged = _resolve(raw, name, where)
        if content.get("tracking_uri"):
            merged.setdefault("tracking_uri", content["tracking_uri"])
        targets[name] = validate(Target, merged, lambda path, name=name: where("targets", name, *path))
    return Targets(source, targets)


def _resolve(raw, name, where, seen=()) -> dict[str, Any]:
    fields = dict(raw[name])
    parent = fields.pop("extends", None)
    if parent is None:
        return fields
    if parent not in raw:
        raise ConfigError(f"{where('targets', name, 'extends')}: there is no target '{parent}' in this file; {hint(str(parent), raw)}")
    if parent in (*seen, name):
        raise ConfigError(f"{where('targets', name, 'extends')}: {' -> '.join((*seen, name, parent))} is a circle: remove one 'extends'")
    return overlay(_resolve(raw, parent, where, (*seen, name)), fields)


def overlay(base: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `above`: mappings are merged, all else is replaced."""
    merged = dict(base)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if both else value
    return merged


def _line(node, path) -> int:
    """The line of the entry at `path`, or of the nearest entry around it that is in the file itself."""
    line = 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
