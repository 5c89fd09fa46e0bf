"""A delaying work queue: each key is queued at most once and handled by one worker at a time."""

import heapq
import threading
import time
from collections.abc import Hashable
from typing import Generic, TypeVar

MAX_BACKOFF_S = 60.0
Key = TypeVar("Key", bound=Hashable)


class WorkQueue(Generic[Key]):
    """The part of client-go's delaying, rate-limiting work queue that the controller needs."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}

    def add(self, key: Key, after_s: float = 0.0) -> None:
        """Queue `key` for `after_s` seconds from now.

        If it is queued already, the earlier time counts.
        """
        at = time.monotonic() + after_s
        with self._changed:
            if key in self._due and self._due[key] <= at:
                return
            self._due[key] = at
            self._count += 1
            heapq.heappush(self._heap, (at, self._count, key))
            self._changed.notify()

    def add_failed(self, key: Key) -> float:
        """Queue `key` again after a failure, with exponential back-off; the delay in seconds."""
        with self._changed:
            self._failures[key] = failures = self._failures.get(key, 0) + 1
        after_s = min(MAX_BACKOFF_S, 0.5 * 2.0 ** (failures - 1))
        self.add(key, after_s)
        return after_s

    def failures(self, key: Key) -> int:
        """How many times in a row `key` has failed."""
        with self._changed:
            return self._failures.get(key, 0)

    def take(self) -> Key:
        """Wait for the next key that is due and not with a worker; `done` returns it."""
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

    def done(self, key: Key, failed: bool = False) -> None:
        """Return a key. If it became due meanwhile, it is queued at once.

        A success resets its failures.
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
