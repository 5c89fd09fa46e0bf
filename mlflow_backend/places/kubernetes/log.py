"""The log of a pod as the kubelet gives it, line by line: what of it is new, and which line is the
runner's last. Pure.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mlflow_backend.places.kubernetes.objects import labels

STAMPED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) (.*)", re.DOTALL)
"""RFC 3339 time, a space, the text. Lines of the kubelet's own have no time."""
OVERLAP_S = 2
"""A log that is taken up again is asked for from so long before its last line: the API counts whole
seconds.
"""


class PodLog:
    """How far the log of one pod was shown.

    `end_line` is how the runner's last line ends; empty where that is not known.
    """

    def __init__(self, end_line: bytes = b"") -> None:
        self._end_line = end_line
        self._last = b""
        self._unstamped = b""

    def since_s(self, now_s: float) -> int | None:
        """How far back to ask, in whole seconds before `now_s` (the cluster's time); None for the
        whole log.
        """
        if not self._last:
            return None
        second, _, zone = _parts(self._last)
        shown_s = datetime.fromisoformat(
            (second + zone).decode().replace("Z", "+00:00")
        ).timestamp()
        return max(1, int(now_s - shown_s) + OVERLAP_S)

    def take(self, line: bytes) -> tuple[bytes, bool]:
        """What of the next line is to be shown, nothing if it was shown before, and whether it is
        the runner's last.

        A line of the kubelet's own, as that a log cannot be read, comes again with every attempt,
        and is shown once in a row.
        """
        stamped = STAMPED.fullmatch(line)
        if not stamped:
            is_repeated, self._unstamped = line == self._unstamped, line
            return b"" if is_repeated else line, False
        stamp, text = line[: stamped.start(4) - 1], stamped[4]
        if self._last and _rank(stamp) <= _rank(self._last):
            return b"", False
        self._last = stamp
        if self._end_line and text.rstrip().endswith(self._end_line):
            return b"", True
        return text, False


def end_line(run_id: str, mark: str) -> bytes:
    """How the last line of the run's runner ends: with a mark that no script can guess, so that
    none hides what follows.
    """
    return f"run {run_id} has ended {mark}".encode() if mark else b""


def mark_of(job: Mapping[str, Any] | None) -> str:
    """The mark of a Job's runner, as its annotation has it."""
    return str(((job or {}).get("metadata", {}).get("annotations") or {}).get(labels.MARK, ""))


def _rank(stamp: bytes) -> tuple[bytes, bytes]:
    """Orders times of one zone whatever the number of their decimals: the kubelet leaves zeros at
    the end out.
    """
    second, fraction, _ = _parts(stamp)
    return second, (fraction or b".").ljust(10, b"0")


def _parts(stamp: bytes) -> tuple[bytes, bytes, bytes]:
    """Second, fraction and zone of an RFC 3339 time. Raises ValueError for another text."""
    match = STAMPED.fullmatch(stamp + b" ")
    if match is None:
        raise ValueError(f"{stamp!r} is not a time")
    return match[1], match[2] or b"", match[3]
