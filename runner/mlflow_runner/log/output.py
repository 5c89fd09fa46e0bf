"""What the run prints: on disk byte for byte, and on the runner's own standard output as fast as
its reader reads.
"""

import os
import threading
import time
from typing import Callable, Optional

from mlflow_runner.log.spool import SpoolReader, SpoolWriter

READ_BYTES = 1024 * 1024
PREFIX = "[mlflow-compute] "
OPEN_LINE_S = 1.0
"""In a container's log, a line without an end is shown once it has been open for this long."""


class Output:
    """The command's bytes and the runner's own lines, as one stream.

    `on_data` is called after each write. `lines`: standard output is a container's log, which shows
    whole lines only.
    """

    def __init__(
        self, directory: str, capacity: int, on_data: Callable[[], None], lines: bool = False
    ) -> None:
        self._spool = SpoolWriter(directory, capacity)
        self._on_data = on_data
        self._line_start = True
        self._echo = Echo(directory, Lines() if lines else None)

    def write(self, data: bytes) -> None:
        """Append bytes of the command; never blocks on the reader of standard output."""
        if data:
            self._spool.append(data)
            self._line_start = data.endswith(b"\n")
            self._echo.wake()
            self._on_data()

    def say(self, text: str) -> None:
        """Append a line of the runner itself, without the credentials of URLs.

        The line never starts in the middle of a line of the command.
        """
        # imported here because most runs print no such line before their command starts
        from mlflow_runner.contract.redact import redact

        start = "" if self._line_start else "\n"
        self.write(f"{start}{PREFIX}{as_line(redact(text))}\n".encode(errors="replace"))

    def close(self, timeout_s: float) -> None:
        """Wait until standard output has everything, for at most `timeout_s`."""
        self._echo.finish(self._spool.end, timeout_s)


def as_line(text: str) -> str:
    """`text` as one line that is safe to print in a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def describe_gap(lost: int) -> bytes:
    """The line that stands for `lost` bytes of output; empty for 0."""
    return f"{PREFIX}{lost} bytes of output omitted here\n".encode() if lost else b""


class Lines:
    """Ends lines that stay open: a progress bar, which continues with carriage returns, becomes one
    line per second. Pure: the caller passes the time.
    """

    def __init__(self) -> None:
        self._open_since_s: Optional[float] = None
        self._ended = False

    def feed(self, data: bytes, now_s: float) -> bytes:
        """What to print for the next piece of output."""
        if not data:
            return data
        shown = data
        if self._ended and data.startswith(b"\n"):  # the line's own end, already printed
            shown = data[1:]
        self._ended = False
        if data.endswith(b"\n"):
            self._open_since_s = None
        elif self._open_since_s is None or b"\n" in data:
            self._open_since_s = now_s
        return shown + self.end_if_due(now_s)

    def end_if_due(self, now_s: float) -> bytes:
        """A line end if the last line has been open for too long, else nothing."""
        left_s = self.left_s(now_s)
        if left_s is None or left_s > 0:
            return b""
        self._open_since_s, self._ended = None, True
        return b"\n"

    def left_s(self, now_s: float) -> Optional[float]:
        """Seconds until the open line is due; None if no line is open."""
        if self._open_since_s is None:
            return None
        return max(0.0, self._open_since_s + OPEN_LINE_S - now_s)


class Echo:
    """A thread that copies the spool to `fd`, until a write fails because the reader is gone."""

    def __init__(self, directory: str, lines: Optional[Lines], fd: int = 1) -> None:
        self._reader = SpoolReader(directory)
        self._lines = lines
        self._fd = fd
        self._data = threading.Event()
        self._until: Optional[int] = None
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Announce new bytes in the spool."""
        self._data.set()

    def finish(self, end: int, timeout_s: float) -> None:
        """Wait until all bytes before the offset `end` are copied, for at most `timeout_s`."""
        self._until = end
        self._data.set()
        self._thread.join(timeout_s)

    def _copy(self) -> None:
        try:
            while True:
                self._data.wait(self._lines.left_s(time.monotonic()) if self._lines else None)
                self._data.clear()
                self._copy_available()
                if self._lines:
                    self._write(self._lines.end_if_due(time.monotonic()))
                if self._until is not None and self._reader.offset >= self._until:
                    return
        except OSError:
            return  # the run continues without a reader

    def _copy_available(self) -> None:
        while True:
            chunk = self._reader.peek(READ_BYTES)
            if chunk.lost:
                self._show(b"\n" + describe_gap(chunk.lost))
            if not chunk.data:
                return
            self._show(chunk.data)
            self._reader.advance(chunk, len(chunk.data))

    def _show(self, data: bytes) -> None:
        self._write(self._lines.feed(data, time.monotonic()) if self._lines else data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
