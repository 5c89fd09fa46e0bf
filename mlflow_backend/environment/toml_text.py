"""TOML: read with the standard library, written in one canonical form."""

import datetime as dt
import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table: TypeAlias = Mapping[str, Any]
"""A table of TOML, or a mapping of YAML, whose keys are text."""


def load(text: str) -> dict[str, Any]:
    """The content of `text`. Raises ValueError where it is not TOML, or is nested too deeply."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dump(content: Table) -> str:
    """The text of `content` (as `load` returns it): one line for each value, and one table for
    each item of a list of tables on the first level.

    No value spans lines: the runner, which has no TOML parser on Python 3.9, changes addresses
    line by line.
    """
    tables = {
        name: value
        for name, value in content.items()
        if isinstance(value, list) and value and _are_tables(value)
    }
    lines = [
        f"{_key(name)} = {_value(value)}\n" for name, value in content.items() if name not in tables
    ]
    for name, items in tables.items():
        for item in items:
            lines.append(f"\n[[{_key(name)}]]\n")
            lines += [f"{_key(key)} = {_value(value)}\n" for key, value in item.items()]
    return "".join(lines)


def _are_tables(value: list[Any]) -> bool:
    return all(isinstance(item, dict) for item in value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dict):
        items = ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items())
        return f"{{ {items} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)


def _text(text: str) -> str:
    """A basic string: JSON's form with DEL escaped, as TOML requires."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
