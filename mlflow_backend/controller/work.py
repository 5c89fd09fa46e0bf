"""A delaying work queue: each key is queued at most once and handled by one worker at a time."""

import heapq
import threading
import time
from collections.abc import Hashable

MAX_BACKOFF_S = 60.0


class WorkQueue:
    """What the controller needs of client-go's delaying, rate-limiting work queue."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[Hashable, float] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._count = 0
        self._busy: set[Hashable] = set()
        self._again: set[Hashable] = set()
        self._failures: dict[Hashable, int] = {}

    def add(self, key: Hashable, after_s: float = 0.0) -> None:
        """Queue `key` for `after_s` seconds from now.

        If it is queued already, the sooner time counts.
        """
        at = time.monotonic() + after_s
        with self._changed:
            if key in self._due and self._due[key] <= at:
                return
            self._due[key] = at
            self._count += 1
            heapq.heappush(self._heap, (at, self._count, key))
            self._changed.notify()

    def add_failed(self, key: Hashable) -> float:
        """Queue `key` again after a failure, later each time. Returns in how many seconds."""
        with self._changed:
            self._failures[key] = failures = self._failures.get(key, 0) + 1
        after_s = min(MAX_BACKOFF_S, 0.5 * 2.0 ** (failures - 1))
        self.add(key, after_s)
        return after_s

    def failures(self, key: Hashable) -> int:
        """How often in a row `key` has failed."""
        with self._changed:
            return self._failures.get(key, 0)

    def take(self) -> Hashable:
        """Wait for the next key that is due and not with a worker; `done` gives it back."""
        with self._changed:
            while True:
                now = time.monotonic()
                while self._heap and self._heap[0][0] <= now:
                    at, _, key = heapq.heappop(self._heap)
                    if self._due.get(key) != at:
                        continue  # replaced by an earlier one
                    del self._due[key]
                    if key not in self._busy:
                        self._busy.add(key)
                        return key
                    self._again.add(key)
                self._changed.wait(self._heap[0][0] - now if self._heap else None)

    def done(self, key: Hashable, failed: bool = False) -> None:
        """Give a key back.

        If it became due meanwhile, it is queued again at once. A success clears its failures.
        """
        with self._changed:
            self._busy.discard(key)
            if not failed:
                self._failures.pop(key, None)
            again = key in self._again
            self._again.discard(key)
        if again:
            self.add(key)

    def __len__(self) -> int:
        with self._changed:
            return len(self._due) + len(self._busy)
