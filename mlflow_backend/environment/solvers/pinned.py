"""Hashes that requirement lines ask for (`--hash=sha256:...`), checked against a lock: uv takes
them and does not compare (uv 0.13).
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlflow_backend.environment.asked.requirements import split_hashes
from mlflow_backend.environment.lock_files import pylock
from mlflow_backend.environment.urls import without_login
from mlflow_backend.errors import EnvironmentSpecError

CONSTRAINT = "-c "
REQUIRE = "--require-hashes"


def check(content: Mapping[str, Any], lines: Iterable[str], source: Path) -> dict[str, Any]:
    """The lock's content with only those files whose hashes `lines` ask for; packages without
    hashes keep all files.

    Where requirement and constraint both have hashes, both count. With `--require-hashes` every
    package must have some. Raises EnvironmentSpecError naming the package.
    """
    lines = list(lines)
    asked = _by_package(line for line in lines if not line.startswith(CONSTRAINT))
    limits = _by_package(
        line.removeprefix(CONSTRAINT) for line in lines if line.startswith(CONSTRAINT)
    )
    pinned = {
        package["name"]
        for package in content["packages"]
        for pins in (asked, limits)
        if _pins(package, pins) is not None
    }
    free = sorted({package["name"] for package in content["packages"]} - pinned)
    if REQUIRE in lines and free:
        raise EnvironmentSpecError(
            f"{source}: --require-hashes: no hash for {', '.join(free)}: list each package with == "
            "and --hash"
        )
    left = content
    for pins in (asked, limits):
        left = pylock.keep_files(left, functools.partial(_is_asked, pins))
    empty = sorted(
        package["name"]
        for package in left["packages"]
        if package["name"] in pinned and not pylock.files(package)
    )
    if empty:
        raise EnvironmentSpecError(
            f"{source}: {', '.join(empty)}: no file has a hash that is asked for: the index has "
            "another file than the one that was hashed; compare the two, then correct --hash "
            "(sha256)"
        )
    return left


def _is_asked(
    pins: Mapping[str, set[str]], package: Mapping[str, Any], file: Mapping[str, Any]
) -> bool:
    asked = _pins(package, pins)
    return asked is None or bool(asked & pylock.hash_texts(file))


def _pins(package: Mapping[str, Any], pins: Mapping[str, set[str]]) -> set[str] | None:
    """The hashes that are asked for a package, by its name or its address; None where there are
    none.
    """
    keys = [canonicalize_name(package["name"]), *(file["url"] for file in pylock.files(package))]
    return next((pins[key] for key in keys if key in pins), None)


def _by_package(lines: Iterable[str]) -> dict[str, set[str]]:
    """The hashes of each package, by canonical name, or by address where a line has no name."""
    found: dict[str, set[str]] = {}
    for line in lines:
        bare, hashes = split_hashes(line)
        if hashes:
            found.setdefault(_name(bare), set()).update(hashes)
    return found


def _name(bare: str) -> str:
    try:
        return canonicalize_name(Requirement(bare).name)
    except InvalidRequirement:
        return without_login(bare.split()[0].partition("#")[0])
