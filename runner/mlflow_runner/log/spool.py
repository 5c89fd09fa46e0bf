"""The run's output on disk: one writer, several readers that may be slower than it.

The output is an endless row of bytes cut into segment files named by the
offset of their first byte. At most `capacity` bytes are kept: a reader that
falls further behind than that is told how many bytes it missed, and the
user's process never waits for it.
"""

import os
from typing import List, NamedTuple, Tuple

SEGMENT_BYTES = 8 * 1024 * 1024


class Chunk(NamedTuple):
    """`data` starts at `start`; `lost` bytes before it are gone; when `closed`, no more will come
    right behind it.
    """

    start: int
    data: bytes
    lost: int
    closed: bool = False


class SpoolWriter:
    """Appends to the spool in `directory`, which holds at most about `capacity` bytes."""

    def __init__(self, directory, capacity: int, segment_bytes: int = SEGMENT_BYTES):
        self._directory = os.fspath(directory)
        os.makedirs(self._directory, exist_ok=True)
        self._segment_bytes = min(segment_bytes, max(1, capacity // 2))
        self._kept = max(2, capacity // self._segment_bytes)
        self._file = None
        self._room = 0
        self.end = 0

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                if self._room == 0:
                    self._rotate()
                written = self._file.write(view[: self._room])
                self._room -= written
                self.end += written
                view = view[written:]
        except OSError:
            # a full disk: readers see a gap before what is written once there is room again
            self.end += len(view)
            self._room = 0

    def _rotate(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
        for _, path in _segments(self._directory)[: 1 - self._kept]:
            os.unlink(path)
        self._file = open(os.path.join(self._directory, f"{self.end:020d}.log"), "ab", buffering=0)
        self._room = self._segment_bytes


class SpoolReader:
    """Reads the spool in `directory` from any process; `offset` is the next byte it will return."""

    def __init__(self, directory, offset: int = 0):
        self._directory = os.fspath(directory)
        self.offset = offset

    def peek(self, limit: int) -> Chunk:
        """At most `limit` bytes from `offset` on, without moving it; empty when there are none
        yet.
        """
        while True:
            segments = _segments(self._directory)
            if not segments:
                return Chunk(self.offset, b"", 0)
            try:
                return _read(segments, self.offset, limit)
            except FileNotFoundError:  # dropped by the writer since it was listed
                continue

    def end(self) -> int:
        """The offset behind the last byte that has been written."""
        segments = _segments(self._directory)
        if not segments:
            return 0
        start, path = segments[-1]
        return start + os.path.getsize(path)

    def advance(self, chunk: Chunk, length: int) -> None:
        """Count the first `length` bytes of `chunk`, and all that was lost before it, as read."""
        self.offset = chunk.start + length


def _segments(directory: str) -> List[Tuple[int, str]]:
    names = sorted(name for name in os.listdir(directory) if name.endswith(".log"))
    return [(int(name[:-4]), os.path.join(directory, name)) for name in names]


def _read(segments: List[Tuple[int, str]], offset: int, limit: int) -> Chunk:
    """What follows `offset` without a gap; a gap at `offset` itself is what was lost."""
    start, data = offset, b""
    following = [start for start, _ in segments[1:]] + [None]
    for (begin, path), after in zip(segments, following):
        position = start + len(data)
        if after is not None and after <= position:
            continue
        if begin > position:
            if data:
                return Chunk(start, data, start - offset, closed=True)
            start = position = begin
        with open(path, "rb") as file:
            file.seek(position - begin)
            data += file.read(limit - len(data))
        if len(data) == limit:
            break
    return Chunk(start, data, start - offset)
