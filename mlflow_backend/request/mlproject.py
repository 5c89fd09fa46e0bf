"""Checks of the MLproject file before MLflow reads it: MLflow accepts any YAML and fails on most of
it with a traceback.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from mlflow_backend import yaml_files
from mlflow_backend.errors import ProjectError

FILE_NAME = "MLproject"
MOST_BYTES = 1_000_000
TEXTS = ("conda_env", "python_env")
MAPPINGS = ("docker_env", "databricks_spark_job")

Object: TypeAlias = Mapping[str, Any]


def read(directory: Path) -> Object:
    """The content of the project's file; empty without a file, which MLflow allows.

    Raises ProjectError with the line of a value that MLflow could not read.
    """
    path = next(
        (directory / name for name in os.listdir(directory) if name.lower() == FILE_NAME.lower()),
        None,
    )
    if path is None:
        return {}
    text = yaml_files.read(path, ProjectError, MOST_BYTES)
    document = yaml_files.parse(text, str(path), ProjectError)
    content: Object = document.content
    check = _Check(path, document)
    check(content, dict, (), "'entry_points:' with an entry point's name below it")
    for key in TEXTS:
        check(content.get(key) or "", str, (key,), "the name of a file")
    for key in MAPPINGS:
        check(content.get(key) or {}, dict, (key,), "fields below it")
    image = (content.get("docker_env") or {}).get("image") or ""
    check(image, str, ("docker_env", "image"), "an image's name")
    entry_points = content.get("entry_points", {})
    check(entry_points, dict, ("entry_points",), "an entry point's name below it")
    for name, entry_point in entry_points.items():
        _check_entry_point(check, name, entry_point)
    return content


def _check_entry_point(check: "_Check", name: Any, entry_point: Any) -> None:
    place = ("entry_points", name)
    check(entry_point, dict, place, "'command:' below it")
    check(entry_point.get("command", ""), str, (*place, "command"), "a command as text")
    parameters = entry_point.get("parameters", {})
    check(parameters, dict, (*place, "parameters"), "a parameter's name below it")
    for parameter, fields in parameters.items():
        place_of_fields = (*place, "parameters", parameter)
        valid = "a type such as float, or 'type:' and 'default:'"
        check(fields, (str, dict), place_of_fields, valid)


class _Check:
    """Raises ProjectError for a value of the file that is not of type `kind`; `valid` says what to
    write at its place (keys).
    """

    def __init__(self, path: Path, document: yaml_files.Document) -> None:
        self._path, self._root = path, document.root

    def __call__(
        self, value: Any, kind: type | tuple[type, ...], place: tuple[Any, ...], valid: str
    ) -> None:
        if not isinstance(value, kind):
            name = f", {'.'.join(map(str, place))}" if place else ""
            line = yaml_files.line_of(self._root, place)
            raise ProjectError(
                f"{self._path}, line {line}{name}: {value!r:.50} is not valid",
                hint=f"write {valid}",
            )
