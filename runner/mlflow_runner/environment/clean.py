"""The process that keeps a cache below its limit, at low priority next to the user's command."""

import os
import sys
from typing import List

from mlflow_runner.environment.cache import clean
from mlflow_runner.log.output import PREFIX


def main(arguments: List[str]) -> int:
    """`clean CACHE LIMIT_BYTES`; the exit code."""
    cache_dir, limit = arguments
    os.nice(19)
    try:
        removed, freed = clean(cache_dir, int(limit))
    except OSError as error:
        print(f"{PREFIX}the cache could not be cleaned: {error}", file=sys.stderr)
        return 1
    if freed:
        print(
            f"{PREFIX}cache: {removed} environments removed, {freed / 1e6:.0f} MB freed",
            file=sys.stderr,
        )
    return 0
