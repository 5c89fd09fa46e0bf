"""The command lines of the runner's own processes."""

import sys
from typing import List

ISOLATED = "-E"
"""Python then ignores PYTHONPATH: a module of the project named like one of the standard library
must not reach the runner. `-I` would hide packages that the user installed with `pip install
--user` as well, mlflow among them.
"""


def command(*arguments: str) -> List[str]:
    """This zip again, in another mode (see `__main__`)."""
    return [sys.executable, ISOLATED, sys.argv[0], *arguments]
