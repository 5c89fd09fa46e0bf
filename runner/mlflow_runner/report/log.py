"""The log channel: the spool as numbered artifacts `FOLDER/STAMP.000000.txt`; each but the last
ends at a line end.
"""

import time
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from mlflow_runner.contract.answers import Refused, TooLarge
from mlflow_runner.log.output import PREFIX, describe_gap
from mlflow_runner.log.spool import Chunk, SpoolReader
from mlflow_runner.report.channel import Channel
from mlflow_runner.report.progress import Progress

if TYPE_CHECKING:
    from mlflow_runner.tracking import RunClient

PART_BYTES = 512 * 1024
"""A part that has reached this size is final; a smaller one is sent as a whole at each flush."""
MIN_PART_BYTES = 1024
"""For a server that rejects larger bodies, parts are halved down to this size."""


class Part(NamedTuple):
    """The next part: the `chunk` it comes from, a `note` on output that was lost before it, its
    `data`, and whether it is final.
    """

    chunk: Chunk
    note: bytes
    data: bytes
    is_final: bool


class Log(Channel):
    """Everything before `number` has arrived, or was refused for good."""

    name = "the log"

    def __init__(self, directory: str, say: Callable[[str], None], folder: str = "logs") -> None:
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
        self._last_line = b""
        self._save()  # the stamp: a restart continues with the same names

    def append(self, line: str) -> None:
        """Add a line of the reporter's own after everything else."""
        self._last_line = f"{PREFIX}{line}\n".encode(errors="replace")

    def send(self, run: "RunClient", closing: bool) -> None:
        """See `Channel.send`."""
        while self._send_part(run, closing):
            pass

    def _send_part(self, run: "RunClient", closing: bool) -> bool:
        """Send the next part; False if it is not final, or contains nothing new."""
        part = self._next()
        tail = b"" if part.is_final or not closing else self._last_line
        if len(part.data) + len(tail) == self._sent_bytes and not part.is_final:
            return False
        name = f"{self._folder}/{self._stamp}.{self._number:06d}.txt"
        run.upload(name, part.note + part.data + tail)
        if not part.is_final:
            self._sent_bytes = len(part.data) + len(tail)
            return False
        self._go_past(part)
        return True

    def _next(self) -> Part:
        chunk = self._reader.peek(self._part_bytes)
        note = describe_gap(chunk.lost)
        data = chunk.data[: max(1, self._part_bytes - len(note))]
        is_full = len(data) + len(note) >= self._part_bytes
        if is_full:
            data = data[: _line_end(data)]
        return Part(chunk, note, data, is_full or bool(chunk.lost) or chunk.closed)

    def _go_past(self, part: Part) -> None:
        self._reader.advance(part.chunk, len(part.data))
        self._number += 1
        self._sent_bytes = 0
        self._save()

    def drop(self, error: Refused) -> bool:
        """See `Channel.drop`; a body that is too large is sent in smaller parts."""
        if isinstance(error, TooLarge) and self._part_bytes > MIN_PART_BYTES:
            self._part_bytes //= 2
            self._save()
            return False
        part = self._next()
        self._dropped_bytes += len(part.data)
        self._go_past(part)
        self._say(f"could not upload {len(part.data)} bytes of the log: {error}")
        return True

    def missing(self, otherwise: str = "the time limit was reached") -> Optional[str]:
        """See `Channel.missing`; `otherwise` is the reason where no upload has failed."""
        size = self._dropped_bytes + max(
            0, self._reader.end() - self._reader.offset - self._sent_bytes
        )
        return f"{size} bytes of the log are missing: {self._why or otherwise}" if size else None

    def _save(self) -> None:
        self._progress.set(
            stamp=self._stamp,
            number=self._number,
            offset=self._reader.offset,
            part_bytes=self._part_bytes,
            dropped_bytes=self._dropped_bytes,
        )


def _line_end(data: bytes) -> int:
    """The length of `data` up to its last line end, or all of it if there is none."""
    return data.rfind(b"\n") + 1 or len(data)
