"""One process at a time builds, starts or stops the cluster: workers of pytest, `make cluster` in
two terminals or two checkouts.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from typing import IO

from tests.cluster.debian.paths import STATE


@contextlib.contextmanager
def alone() -> Iterator[IO[str]]:
    """Waits for the process that is here now; the file, for a note to the next.

    The lock ends with its process; daemons do not inherit it.
    """
    STATE.mkdir(parents=True, exist_ok=True)
    with open(STATE / "lock", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file
