"""One process at a time builds, starts or stops the cluster: workers of pytest, `make cluster` in two terminals or two checkouts."""

import contextlib
import fcntl
from collections.abc import Iterator

from tests.cluster.debian.paths import STATE


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Waits for the process that is here now. The lock ends with the process that holds it; daemons do not inherit it."""
    STATE.mkdir(parents=True, exist_ok=True)
    with open(STATE / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
