"""The log channel: the spool as numbered artifacts `FOLDER/STAMP.000000.txt`, each but the last
ending at the end of a line.
"""

import time
from typing import Callable, Optional

from mlflow_runner.contract.answers import Refused, TooLarge
from mlflow_runner.log.output import PREFIX, describe_gap
from mlflow_runner.log.spool import SpoolReader
from mlflow_runner.report.channel import Channel
from mlflow_runner.report.progress import Progress

PART_BYTES = 512 * 1024
"""A part that has reached this size is never sent again; an open one is sent as a whole at each
flush.
"""
LEAST_PART_BYTES = 1024
"""Parts are halved down to this size for a server that takes no larger bodies."""


class Log(Channel):
    """How far the log is: everything before `number` has arrived, or was refused for good."""

    name = "the log"

    def __init__(self, directory, say: Callable[[str], None], folder: str = "logs"):
        progress = Progress(directory, "log")
        super().__init__(progress, say)
        self._folder = folder
        self._reader = SpoolReader(directory, progress.get("offset", 0))
        self._stamp: str = progress.get("stamp", "") or time.strftime(
            "%Y-%m-%dT%H-%M-%SZ", time.gmtime()
        )
        self._number: int = progress.get("number", 0)
        self._part_bytes: int = progress.get("part_bytes", PART_BYTES)
        self._dropped_bytes: int = progress.get("dropped_bytes", 0)
        self._sent_bytes = 0
        self._last_words = b""
        self._save()  # the stamp: a restart goes on with the same names

    def append(self, line: str) -> None:
        """A line of the reporter's own behind everything else."""
        self._last_words = f"{PREFIX}{line}\n".encode(errors="replace")

    def send(self, run, closing: bool) -> None:
        while self._send_part(run, closing):
            pass

    def _send_part(self, run, closing) -> bool:
        """Send the next part; False when it is open, or nothing is there that has not been sent."""
        chunk, note, data, is_final = self._next()
        tail = b"" if is_final or not closing else self._last_words
        if len(data) + len(tail) == self._sent_bytes and not is_final:
            return False
        run.upload(f"{self._folder}/{self._stamp}.{self._number:06d}.txt", note + data + tail)
        if not is_final:
            self._sent_bytes = len(data) + len(tail)
            return False
        self._go_past(chunk, len(data))
        return True

    def _next(self):
        """The chunk of the next part, the line that says what was lost before it, its bytes, and
        whether no more will be in it.
        """
        chunk = self._reader.peek(self._part_bytes)
        note = describe_gap(chunk.lost)
        data = chunk.data[: max(1, self._part_bytes - len(note))]
        is_full = len(data) + len(note) >= self._part_bytes
        if is_full:
            data = data[: _line_end(data)]
        return chunk, note, data, is_full or bool(chunk.lost) or chunk.closed

    def _go_past(self, chunk, length):
        self._reader.advance(chunk, length)
        self._number += 1
        self._sent_bytes = 0
        self._save()

    def drop(self, error: Refused) -> bool:
        if isinstance(error, TooLarge) and self._part_bytes > LEAST_PART_BYTES:
            self._part_bytes //= 2
            self._save()
            return False
        chunk, _, data, _ = self._next()
        self._dropped_bytes += len(data)
        self._go_past(chunk, len(data))
        self._say(f"{len(data)} bytes of the log are not kept with the run: {error}")
        return True

    def missing(self, otherwise: str = "there was no time left") -> Optional[str]:
        """As `Channel.missing`; `otherwise` is the reason where no upload has failed."""
        size = self._dropped_bytes + max(
            0, self._reader.end() - self._reader.offset - self._sent_bytes
        )
        return f"{size} bytes of the log are missing: {self._why or otherwise}" if size else None

    def _save(self):
        self._progress.set(
            stamp=self._stamp,
            number=self._number,
            offset=self._reader.offset,
            part_bytes=self._part_bytes,
            dropped_bytes=self._dropped_bytes,
        )


def _line_end(data: bytes) -> int:
    """Just behind the last line end, or all of it when there is none."""
    return data.rfind(b"\n") + 1 or len(data)
