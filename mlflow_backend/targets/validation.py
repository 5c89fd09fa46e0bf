"""From the values that a user wrote to a model, or to one line that names the wrong value."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from mlflow_backend.errors import ConfigError, nearest

Location: TypeAlias = tuple[int | str, ...]
"""Keys and indexes that lead to a value."""
Model = TypeVar("Model", bound=BaseModel)


class InvalidValue(ValueError):
    """A value that a validator rejects; `hint` says what to write instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}: {hint}" if hint else message)
        self.message, self.hint = message, hint


def validate(model: type[Model], values: Any, describe: Callable[..., str]) -> Model:
    """`values` as a `model`.

    `describe` turns the location of a wrong value (its keys and indexes, as arguments) into the
    start of the error's sentence. Raises ConfigError.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(part for part in first["loc"] if not _is_branch(part, values, first["loc"]))
        place = describe(*path)
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"{place}: unknown key '{path[-1]}'",
                code="UnknownField",
                hint=nearest(str(path[-1]), model.model_fields),
            ) from None
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InvalidValue):
            raise ConfigError(f"{place}: {cause.message}", hint=cause.hint) from None
        reason = first["msg"]
        raise ConfigError(
            f"{place}: {reason[0].lower() + reason[1:]}{_describe_input(first)}"
        ) from None


def _describe_input(error: Mapping[str, Any]) -> str:
    value = error["input"]
    return "" if isinstance(value, (dict, list)) else f", found {value!r:.100}"


def _is_branch(part: int | str, values: Any, path: Location) -> bool:
    """Whether the part is the name of a union's branch, which Pydantic adds to the path."""
    for key in path:
        if key is part:
            return isinstance(part, str) and not (isinstance(values, dict) and part in values)
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            continue
    return False
