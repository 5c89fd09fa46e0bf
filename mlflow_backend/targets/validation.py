"""From what a user wrote to a model, or to one line that names the place."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mlflow_backend.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], values: Any, where: Callable[[tuple], str]) -> Model:
    """`values` as a `model`.

    `where` turns the path of a wrong entry (keys and indexes) into the words that
    start the error's sentence. Raises ConfigError.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(part for part in first["loc"] if not _is_branch(part, values, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"{where(path)}: unknown key '{path[-1]}'; "
                f"{nearest(str(path[-1]), model.model_fields)}"
            ) from None
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{where(path)}: {reason[0].lower() + reason[1:]}{_found(first)}"
        ) from None


def _found(error) -> str:
    value = error.get("input")
    if error["type"] == "value_error" or isinstance(value, (dict, list)):
        return ""
    return f", found {value!r:.100}"


def _is_branch(part, values, path) -> bool:
    """Pydantic adds the name of a union's branch to the path; it is no key of the user's."""
    for key in path:
        if key is part:
            return isinstance(part, str) and not (isinstance(values, dict) and part in values)
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            continue
    return False
