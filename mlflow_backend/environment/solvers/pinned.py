"""Hashes of requirement lines (`--hash=sha256:...`), compared with those of a lock: uv accepts them
without comparing (uv 0.13).
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlflow_backend.environment.lock_files import pylock
from mlflow_backend.environment.parsers.requirements import split_hashes
from mlflow_backend.environment.toml_text import Table
from mlflow_backend.environment.urls import without_login
from mlflow_backend.errors import EnvironmentSpecError

CONSTRAINT = "-c "
REQUIRE = "--require-hashes"


def check(content: dict[str, Any], lines: Iterable[str], source: Path) -> dict[str, Any]:
    """The lock's content with only the files whose hashes `lines` list; packages without hashes
    keep all files.

    Hashes of a requirement and of a constraint both count. With `--require-hashes` every package
    must have some. Raises EnvironmentSpecError naming the package.
    """
    lines = list(lines)
    requirements = _hashes_by_package(line for line in lines if not line.startswith(CONSTRAINT))
    constraints = _hashes_by_package(
        line.removeprefix(CONSTRAINT) for line in lines if line.startswith(CONSTRAINT)
    )
    pinned = {
        package["name"]
        for package in content["packages"]
        for pins in (requirements, constraints)
        if _pins(package, pins) is not None
    }
    free = sorted({package["name"] for package in content["packages"]} - pinned)
    if REQUIRE in lines and free:
        raise EnvironmentSpecError(
            f"{source}: --require-hashes: no hash for {', '.join(free)}",
            hint="list each package with == and --hash",
        )
    for pins in (requirements, constraints):
        content = pylock.keep_files(content, functools.partial(_is_pinned, pins))
    empty = sorted(
        package["name"]
        for package in content["packages"]
        if package["name"] in pinned and not pylock.files(package)
    )
    if empty:
        raise EnvironmentSpecError(
            f"{source}: {', '.join(empty)}: no file of the index has one of the hashes in the file",
            code="NoSolution",
            hint="compare the index's file with the one that was hashed, then correct --hash "
            "(sha256)",
        )
    return content


def _is_pinned(pins: Mapping[str, set[str]], package: Table, file: Table) -> bool:
    hashes = _pins(package, pins)
    return hashes is None or bool(hashes & pylock.hash_texts(file))


def _pins(package: Table, pins: Mapping[str, set[str]]) -> set[str] | None:
    """The hashes for a package, by its name or its address; None without any."""
    keys = [canonicalize_name(package["name"]), *(file["url"] for file in pylock.files(package))]
    return next((pins[key] for key in keys if key in pins), None)


def _hashes_by_package(lines: Iterable[str]) -> dict[str, set[str]]:
    """The hashes of each package, by canonical name, or by address if a line has no name."""
    by_package: dict[str, set[str]] = {}
    for line in lines:
        bare, hashes = split_hashes(line)
        if hashes:
            by_package.setdefault(_name(bare), set()).update(hashes)
    return by_package


def _name(bare: str) -> str:
    try:
        return canonicalize_name(Requirement(bare).name)
    except InvalidRequirement:
        return without_login(bare.split()[0].partition("#")[0])
