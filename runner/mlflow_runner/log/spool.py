"""The run's output on disk: one writer, and readers that may be slower than it.

The output is a stream of bytes, cut into segment files that are named by the offset of their first
byte. The spool holds at most `capacity` bytes: a reader that falls further behind gets the number
of bytes that it missed, and the user's process never waits for a reader.
"""

import os
from io import FileIO
from typing import List, NamedTuple, Optional, Tuple

SEGMENT_BYTES = 8 * 1024 * 1024


class Chunk(NamedTuple):
    """`data` starts at the offset `start`; `lost` bytes before it are gone. `closed`: a gap follows
    `data` directly.
    """

    start: int
    data: bytes
    lost: int
    closed: bool = False


class SpoolWriter:
    """Appends to the spool in `directory`, which holds about `capacity` bytes at most."""

    def __init__(self, directory: str, capacity: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        os.makedirs(directory, exist_ok=True)
        self._segment_bytes = min(segment_bytes, max(1, capacity // 2))
        self._most_segments = max(2, capacity // self._segment_bytes)
        self._file: Optional[FileIO] = None
        self._room = 0
        self.end = 0

    def append(self, data: bytes) -> None:
        """Append `data`; what a full disk does not take becomes a gap for readers."""
        view = memoryview(data)
        try:
            while view:
                file = self._file if self._file and self._room else self._rotate()
                written = file.write(view[: self._room])
                self._room -= written
                self.end += written
                view = view[written:]
        except OSError:
            self.end += len(view)
            self._room = 0

    def _rotate(self) -> FileIO:
        """Open the next segment and remove those above the capacity. Raises OSError."""
        if self._file:
            self._file.close()
            self._file = None
        for _, path in _segments(self._directory)[: 1 - self._most_segments]:
            os.unlink(path)
        self._file = FileIO(os.path.join(self._directory, f"{self.end:020d}.log"), "ab")
        self._room = self._segment_bytes
        return self._file


class SpoolReader:
    """Reads the spool in `directory` from any process; `offset` is the next byte to return."""

    def __init__(self, directory: str, offset: int = 0) -> None:
        self._directory = directory
        self.offset = offset

    def peek(self, limit: int) -> Chunk:
        """At most `limit` bytes from `offset` on, which stays; empty while there are none."""
        while True:
            segments = _segments(self._directory)
            if not segments:
                return Chunk(self.offset, b"", 0)
            try:
                return _read(segments, self.offset, limit)
            except FileNotFoundError:  # the writer removed it after it was listed
                continue

    def end(self) -> int:
        """The offset after the last byte written."""
        segments = _segments(self._directory)
        if not segments:
            return 0
        start, path = segments[-1]
        return start + os.path.getsize(path)

    def advance(self, chunk: Chunk, length: int) -> None:
        """Count the first `length` bytes of `chunk`, and all bytes lost before it, as read."""
        self.offset = chunk.start + length


def _segments(directory: str) -> List[Tuple[int, str]]:
    names = sorted(name for name in os.listdir(directory) if name.endswith(".log"))
    return [(int(name[:-4]), os.path.join(directory, name)) for name in names]


def _read(segments: List[Tuple[int, str]], offset: int, limit: int) -> Chunk:
    """The bytes after `offset` up to a gap; bytes missing at `offset` itself count as lost."""
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
