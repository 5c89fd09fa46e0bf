"""When to retry after a failure."""

MAX_BACKOFF_S = 15.0


class Backoff:
    """The first call at once, then 1, 2, 4 ... seconds after each failure in a row, at most
    `MAX_BACKOFF_S`.

    Times are those of a monotonic clock.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.due_s = 0.0

    def fail(self, now_s: float) -> None:
        """Count a failure, which delays the next call."""
        self.failures += 1
        self.due_s = now_s + min(MAX_BACKOFF_S, 2.0 ** (self.failures - 1))

    def succeed(self) -> None:
        """Forget all failures."""
        self.failures, self.due_s = 0, 0.0

    def hurry(self) -> None:
        """Allow a retry now; the delay after a further failure grows as before."""
        self.due_s = 0.0
