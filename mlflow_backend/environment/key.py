"""The key of an environment: depends on what is installed, not on how the file is written."""

import hashlib
import json
from collections.abc import Iterable

from mlflow_runner.submission import Environment


def environment(python: str | None, packages: Iterable[str]) -> Environment:
    """The Environment of these PEP 508 requirements, in any order, with its key (sha256, hex)."""
    ordered = tuple(sorted(set(packages)))
    canonical = json.dumps({"python": python, "packages": ordered}, sort_keys=True, separators=(",", ":"))
    return Environment(hashlib.sha256(canonical.encode()).hexdigest(), python, ordered)
