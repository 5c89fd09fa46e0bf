"""What every entry of a lock must be, wherever the lock comes from: types, hashes, addresses, file
names.

A lock may come with a fetched project. What it holds becomes names of files, lines of other files
and addresses that are asked, so each value is checked where the lock is read.
"""

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from mlflow_backend.environment import urls
from mlflow_backend.errors import EnvironmentSpecError, redact

HASH_DIGITS = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
SCHEMES = ("https", "http", "file")
NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!~-]*")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!~=-]*")


def text(
    entry: Mapping[str, Any],
    key: str,
    where: str,
    pattern: re.Pattern | None = None,
    default: str | None = None,
) -> str:
    """`entry[key]`, a text in the form of `pattern`.

    Without a default the key is required. Raises EnvironmentSpecError.
    """
    value = entry.get(key, default)
    if value is None:
        raise EnvironmentSpecError(f"{where}: has no '{key}': make the lock again")
    if not isinstance(value, str) or (
        pattern and value != default and not pattern.fullmatch(value)
    ):
        raise EnvironmentSpecError(
            f"{where}: '{key}' is {shown(value)}, which is not valid: make the lock again"
        )
    return value


def tables(entry: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """`entry[key]`, a list of tables; empty where it is not there. Raises EnvironmentSpecError."""
    value = entry.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise EnvironmentSpecError(
            f"{where}: '{key}' must be a list of tables: make the lock again"
        )
    return value


def table(entry: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """`entry[key]`, a table; empty where it is not there. Raises EnvironmentSpecError."""
    value = entry.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise EnvironmentSpecError(f"{where}: '{key}' must be a table: make the lock again")
    return value


def hashes(entry: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    """`entry[key]`, hashes in lower-case hex by algorithm, at least one.

    Raises EnvironmentSpecError.
    """
    found = table(entry, key, where)
    if not found:
        raise EnvironmentSpecError(f"{where}: has no hash: make the lock again")
    for name, value in found.items():
        digits = HASH_DIGITS.get(name)
        if digits is None:
            raise EnvironmentSpecError(
                f"{where}: hash {shown(name)} is not known: {', '.join(HASH_DIGITS)}"
            )
        if not isinstance(value, str) or not re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", value):
            raise EnvironmentSpecError(
                f"{where}: {name} {shown(value)} does not have {digits} hex digits: make the lock "
                "again"
            )
    return {name: value.lower() for name, value in found.items()}


def url(entry: Mapping[str, Any], key: str, where: str, schemes: tuple[str, ...] = SCHEMES) -> str:
    """`entry[key]`, an address with one of the schemes. Raises EnvironmentSpecError."""
    value = text(entry, key, where)
    try:
        parts = urllib.parse.urlsplit(value)
        valid = (
            parts.scheme in schemes
            and urls.is_plain(value)
            and (parts.scheme == "file" or parts.hostname)
            and (parts.port, True)
        )
    except ValueError:
        valid = False
    if not valid:
        raise EnvironmentSpecError(
            f"{where}: '{key}' is {shown(value)}, which is not an address ({', '.join(schemes)}): "
            "make the lock again"
        )
    return value


def file_name(address: str, where: str) -> str:
    """The name of the file at an address, as it is on disk.

    Raises EnvironmentSpecError for one that is not a plain name.
    """
    name = urllib.parse.unquote(urllib.parse.urlsplit(address).path.rpartition("/")[2])
    if not FILE_NAME.fullmatch(name):
        raise EnvironmentSpecError(
            f"{where}: {shown(address)} does not end in a file name: make the lock again"
        )
    return name


def shown(value: Any) -> str:
    """A value in an error's sentence: short, on one line, without the credentials of a URL."""
    shown = redact(
        repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
    )
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
