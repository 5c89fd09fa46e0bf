"""A run's progress on standard error, and its output on standard output.

A closed pipe (`| head`) does not end the wait.
"""

import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, ClassVar, TextIO

from mlflow_backend.plain_text import plain

if TYPE_CHECKING:
    from rich.status import Status

COUNT_EVERY_S = 5.0
LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""Lines with their ends. A carriage return ends a line too: the next line overwrites it."""


class Progress:
    """Plain lines; on a terminal a spinner that shows the last one until the script prints.

    While several runs are shown at once (`begin`, `end`), each line starts with its run's name.
    """

    _lock = threading.Lock()
    _shown: ClassVar[list["Progress"]] = []

    def __init__(self) -> None:
        self.name = ""
        self._status: Status | None = None
        self._last: str | None = None
        self._counted_at = time.monotonic()
        self._line_start, self._last_end = True, ""

    def say(self, text: str) -> None:
        """Write a line, unless it repeats the last one."""
        if text == self._last:
            return
        self._last = text
        self._stop()
        _write(sys.stderr, f"mlflow-compute: {self._prefix()}{plain(text)}\n")

    def waiting(self, text: str, kind: str | None = None) -> None:
        """Show what the run waits for: a spinner on a terminal, elsewhere a line, once for
        consecutive calls of the same `kind`.
        """
        if not sys.stderr.isatty():
            if kind is None or kind != self._last:
                self.say(text)
                self._last = kind or text
            return
        from rich.console import Console
        from rich.text import Text

        self._stop()
        self._status = Console(stderr=True).status(Text(self._prefix() + plain(text)))
        self._status.start()

    def count(self, text: str, done: int, total: int) -> None:
        """Show the progress of long work, `{text}: 3 of 14`: every step on a terminal; elsewhere
        the last step, and one every five seconds before it.
        """
        now = time.monotonic()
        if sys.stderr.isatty() or done == total or now - self._counted_at >= COUNT_EVERY_S:
            self._counted_at = now
            self.waiting(f"{text}: {done} of {total}")

    def output(self, text: str) -> None:
        """Write a piece of the script's output to standard output, or nowhere once that is
        closed.
        """
        self._stop()
        for piece in LINES.findall(text):
            continues = not self._line_start or (piece == "\n" and self._last_end == "\r")
            _write(sys.stdout, piece if continues else self._prefix() + piece)
            self._last_end = piece[-1]
            self._line_start = self._last_end in "\r\n"

    def begin(self, name: str) -> None:
        """Show a run of this name until `end`."""
        self.name = name
        with self._lock:
            self._shown.append(self)

    def end(self) -> None:
        """Stop showing the run of `begin`."""
        with self._lock:
            self._shown.remove(self)

    def _prefix(self) -> str:
        return f"[{self.name}] " if self.name and len(self._shown) > 1 else ""

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def _write(stream: TextIO, text: str) -> None:
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        # discard further output and go on waiting (docs.python.org, library/signal: SIGPIPE)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
