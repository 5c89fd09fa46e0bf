"""The Python version that an environment is locked for."""

import re
import sys
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from mlflow_backend.environment.checks import quote
from mlflow_backend.errors import EnvironmentSpecError

PYTHONS = tuple(f"3.{minor}" for minor in range(14, 8, -1))


def python_version(wanted: str | None, source: Path) -> str:
    """The one version that an environment is locked for: what the file `source` requests, or else
    this Python's, as in MLflow.

    For a range (`>=3.10`) it is this Python's if that fits, else the newest that fits. `==3.11`
    means any 3.11, as in conda. Raises EnvironmentSpecError.
    """
    here = ".".join(map(str, sys.version_info[:2]))
    if not wanted:
        return here
    if exact := re.fullmatch(r"={0,3}\s*(\d{1,4}(\.\d{1,4}){0,2})", wanted.strip()):
        return exact[1]
    try:
        specifiers = SpecifierSet(wanted.replace(" ", ""))
    except InvalidSpecifier:
        raise EnvironmentSpecError(
            f"{source}: python {quote(wanted)} is not a version",
            hint=f"write a version such as {here}, or a range such as >=3.10",
        ) from None
    for version in (here, *PYTHONS):
        if f"{version}.99" in specifiers:
            return version
    raise EnvironmentSpecError(
        f"{source}: python {quote(wanted)}: no version is in this range",
        code="UnsupportedRequirement",
        hint=f"versions are {', '.join(reversed(PYTHONS))}",
    )
