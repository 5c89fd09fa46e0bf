"""When something that failed is tried again."""

MAX_BACKOFF_S = 15.0


class Backoff:
    """At once, then 1, 2, 4 ... seconds after each failure in a row, at most `MAX_BACKOFF_S`.

    Times are of a monotonic clock.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.due_s = 0.0

    def fail(self, now_s: float) -> None:
        self.failures += 1
        self.due_s = now_s + min(MAX_BACKOFF_S, 2.0 ** (self.failures - 1))

    def succeed(self) -> None:
        self.failures, self.due_s = 0, 0.0

    def hurry(self) -> None:
        """Try again now; a further failure waits as long as it would have."""
        self.due_s = 0.0
