"""The command lines of the runner's own processes."""

import sys
from typing import List

ISOLATED = "-E"
"""Makes Python ignore PYTHONPATH: a module of the project with the name of a standard module must
not reach the runner. `-I` would also hide packages installed with `pip install --user`, such as
mlflow.
"""


def command(*arguments: str) -> List[str]:
    """This zip in another mode (see `__main__`)."""
    return [sys.executable, ISOLATED, sys.argv[0], *arguments]
