"""What happens to a run while its script prints nothing: on standard error, for people.

A reader that is gone ends nothing (`| head`).
"""

import os
import re
import sys
import threading
import time
from typing import TextIO

from mlflow_backend.plain_text import plain

COUNT_EVERY_S = 5.0
LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""Lines with their ends; a carriage return ends one too, as the next one is written over it."""


class Progress:
    """Plain lines; on a terminal a spinner that shows the last one until the script prints.

    While several runs are shown at once, each line of a script says which run it is of (`showing`).
    """

    _lock = threading.Lock()
    _shown: list["Progress"] = []

    def __init__(self) -> None:
        self.name = ""
        self._status = None
        self._last: str | None = None
        self._counted_at = time.monotonic()
        self._line_start, self._last_end = True, ""

    def say(self, text: str) -> None:
        """A lasting line. The same text twice in a row is said once."""
        if text == self._last:
            return
        self._last = text
        self._stop()
        _write(sys.stderr, f"mlflow-compute: {self._prefix()}{plain(text)}\n")

    def waiting(self, text: str, kind: str | None = None) -> None:
        """What is being waited for: a spinner on a terminal, a line elsewhere, there once for each
        `kind` in a row.
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
        """How far long work is, `{text}: 3 of 14`: each step on a terminal; elsewhere the last, and
        one in five seconds before it.
        """
        now = time.monotonic()
        if sys.stderr.isatty() or done == total or now - self._counted_at >= COUNT_EVERY_S:
            self._counted_at = now
            self.waiting(f"{text}: {done} of {total}")

    def output(self, text: str) -> None:
        """A piece of the script's own output, to standard output; nothing once that has no reader
        any more (`| head`).
        """
        self._stop()
        for piece in LINES.findall(text):
            goes_on = not self._line_start or (piece == "\n" and self._last_end == "\r")
            _write(sys.stdout, piece if goes_on else self._prefix() + piece)
            self._last_end = piece[-1]
            self._line_start = self._last_end in "\r\n"

    def begin(self, name: str) -> None:
        """From now on a run of this name is shown; `end` is called when it is over."""
        self.name = name
        with self._lock:
            self._shown.append(self)

    def end(self) -> None:
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
        # what follows goes nowhere; the run is waited for all the same (docs.python.org,
        # library/signal: SIGPIPE)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
