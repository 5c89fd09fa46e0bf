"""Read what an API server streams, and end such a read from another thread."""

import contextlib
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

BLOCK_BYTES = 65536


class Stop:
    """An event that also shuts down the streams that are read under it, and sets its children
    (`child`).
    """

    def __init__(self, parent: "Stop | None" = None) -> None:
        self._parent = parent  # keeps it alive: it refers to its children weakly
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._responses: set[Any] = set()
        self._children: weakref.WeakSet[Stop] = weakref.WeakSet()

    def child(self) -> "Stop":
        """A stop that is set together with this one, or earlier on its own."""
        child = Stop(self)
        with self._lock:
            self._children.add(child)
        if self.is_set():
            child.set()
        return child

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._event.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until the stop is set, for at most `timeout_s` seconds; whether it is set."""
        return self._event.wait(timeout_s)

    def set(self) -> None:
        """Shut down what is being read, and set the children."""
        self._event.set()
        with self._lock:
            responses, children = list(self._responses), list(self._children)
        for response in responses:
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # it has ended already
                response.shutdown()
        for child in children:
            child.set()

    @contextlib.contextmanager
    def reading(self, response: Any) -> Iterator[None]:
        """Read a urllib3 response, which ends when the stop is set; its connection is closed
        afterwards.
        """
        with self._lock:
            self._responses.add(response)
        try:
            yield
        finally:
            with self._lock:
                self._responses.discard(response)
            # a half read response in the pool would be the next call's answer
            response.close()


def blocks(response: Any) -> Iterator[bytes]:
    """The body of a urllib3 response, as it arrives.

    Without chunks, as from a proxy that speaks HTTP/1.0, `stream` waits for whole blocks.
    """
    if response.chunked:
        yield from response.stream(BLOCK_BYTES, decode_content=False)
        return
    while block := response.read1(BLOCK_BYTES, decode_content=False):
        yield block


def lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream, each with its newline; each byte is copied at most twice, whatever the
    length of its line.
    """
    parts: list[bytes] = []
    for block in blocks:
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            parts.append(block[start : end + 1])
            yield b"".join(parts)
            parts.clear()
            start = end + 1
        parts.append(block[start:])
    if rest := b"".join(parts):
        yield rest
