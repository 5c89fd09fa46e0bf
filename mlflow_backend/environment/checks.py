"""Checks of every value in a lock file: types, hashes, addresses and file names.

A lock may come with a project that was fetched from anywhere. Its values become names of files,
lines of other files and addresses that are requested, so each is checked where the lock is read.
"""

import re
import urllib.parse
from typing import Any

from mlflow_backend.environment import urls
from mlflow_backend.environment.toml_text import Table
from mlflow_backend.errors import EnvironmentSpecError, redact

HASH_DIGITS = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
SCHEMES = ("https", "http", "file")
NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!~-]*")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!~=-]*")
LOCK_AGAIN = "create the lock again"


def invalid(message: str, hint: str = LOCK_AGAIN) -> EnvironmentSpecError:
    """The error for a lock that cannot be used."""
    return EnvironmentSpecError(message, code="InvalidLock", hint=hint)


def text(
    entry: Table,
    key: str,
    where: str,
    pattern: re.Pattern[str] | None = None,
    default: str | None = None,
) -> str:
    """`entry[key]`, a text in the form of `pattern`.

    Without a default the key is required. Raises EnvironmentSpecError.
    """
    value = entry.get(key, default)
    if value is None:
        raise invalid(f"{where}: has no '{key}'")
    if not isinstance(value, str) or (
        pattern and value != default and not pattern.fullmatch(value)
    ):
        raise invalid(f"{where}: '{key}' is {quote(value)}, which is not valid")
    return value


def tables(entry: Table, key: str, where: str) -> list[dict[str, Any]]:
    """`entry[key]`, a list of tables; empty without the key. Raises EnvironmentSpecError."""
    value = entry.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise invalid(f"{where}: '{key}' must be a list of tables")
    return value


def table(entry: Table, key: str, where: str) -> dict[str, Any]:
    """`entry[key]`, a table; empty without the key. Raises EnvironmentSpecError."""
    value = entry.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"{where}: '{key}' must be a table")
    return value


def hashes(entry: Table, key: str, where: str) -> dict[str, str]:
    """`entry[key]`, at least one hash in lower-case hex, by algorithm.

    Raises EnvironmentSpecError.
    """
    by_algorithm = table(entry, key, where)
    if not by_algorithm:
        raise invalid(f"{where}: has no hash")
    for name, value in by_algorithm.items():
        digits = HASH_DIGITS.get(name)
        if digits is None:
            raise invalid(
                f"{where}: unknown hash algorithm {quote(name)}", f"use {', '.join(HASH_DIGITS)}"
            )
        if not isinstance(value, str) or not re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", value):
            raise invalid(f"{where}: {name} {quote(value)} does not have {digits} hex digits")
    return {name: value.lower() for name, value in by_algorithm.items()}


def url(entry: Table, key: str, where: str, schemes: tuple[str, ...] = SCHEMES) -> str:
    """`entry[key]`, an address with one of the schemes. Raises EnvironmentSpecError."""
    value = text(entry, key, where)
    if not _is_address(value, schemes):
        raise invalid(
            f"{where}: '{key}' is {quote(value)}, which is not an address ({', '.join(schemes)})"
        )
    return value


def _is_address(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urllib.parse.urlsplit(value)
        _ = parts.port  # raises for a port that is not a number
    except ValueError:
        return False
    return (
        parts.scheme in schemes
        and urls.is_plain(value)
        and (parts.scheme == "file" or bool(parts.hostname))
    )


def file_name(address: str, where: str) -> str:
    """The name on disk of the file at an address.

    Raises EnvironmentSpecError for one that is not a plain name.
    """
    name = urllib.parse.unquote(urllib.parse.urlsplit(address).path.rpartition("/")[2])
    if not FILE_NAME.fullmatch(name):
        raise invalid(f"{where}: {quote(address)} does not end in a file name")
    return name


def quote(value: Any) -> str:
    """A value as an error message shows it: short, on one line, without the credentials of a
    URL.
    """
    shown = redact(
        repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
    )
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
