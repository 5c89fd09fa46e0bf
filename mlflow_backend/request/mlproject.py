"""The MLproject file, looked at before MLflow reads it, which takes any YAML and fails on most with
a traceback.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_backend import yaml_files
from mlflow_backend.errors import ProjectError

FILE_NAME = "MLproject"
MOST_BYTES = 1_000_000
TEXTS = ("conda_env", "python_env")
MAPPINGS = ("docker_env", "databricks_spark_job")


def read(directory: Path) -> Mapping[str, Any]:
    """The content of the project's file; empty where it has none, which MLflow allows.

    Raises ProjectError with the line where MLflow could not read it.
    """
    path = next(
        (directory / name for name in os.listdir(directory) if name.lower() == FILE_NAME.lower()),
        None,
    )
    if path is None:
        return {}
    content, root = yaml_files.parse(
        yaml_files.read(path, ProjectError, MOST_BYTES), str(path), ProjectError
    )

    def check(value: Any, kind: type, place: tuple, write: str) -> None:
        if not isinstance(value, kind):
            where = ".".join(map(str, place))
            named = f", {where}" if place else ""
            raise ProjectError(
                f"{path}, line {yaml_files.line_of(root, place)}{named}: write {write}, found "
                f"{value!r:.50}"
            )

    check(content, dict, (), "'entry_points:' with an entry point's name below it")
    for key in TEXTS:
        check(content.get(key) or "", str, (key,), "the name of a file")
    for key in MAPPINGS:
        check(content.get(key) or {}, dict, (key,), "fields below it")
    check(
        (content.get("docker_env") or {}).get("image") or "",
        str,
        ("docker_env", "image"),
        "an image's name",
    )
    entry_points = content.get("entry_points", {})
    check(entry_points, dict, ("entry_points",), "an entry point's name below it")
    for name, entry_point in entry_points.items():
        place = ("entry_points", name)
        check(entry_point, dict, place, "'command:' below it")
        check(entry_point.get("command", ""), str, (*place, "command"), "a command as text")
        parameters = entry_point.get("parameters", {})
        check(parameters, dict, (*place, "parameters"), "a parameter's name below it")
        for parameter, fields in parameters.items():
            check(
                fields,
                (str, dict),
                (*place, "parameters", parameter),
                "a type such as float, or 'type:' and 'default:'",
            )
    return content
