"""The process that keeps a cache below its limit, at the same time as the user's command and with
less priority.
"""

import os
import sys

from mlflow_runner.environment.cache import clean
from mlflow_runner.log.output import PREFIX


def main(arguments) -> int:
    """`clean CACHE LIMIT_BYTES`."""
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
