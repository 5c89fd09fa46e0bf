"""What happens to a run while its script prints nothing: on standard error, for people."""

import sys
import time

COUNT_EVERY_S = 5.0


class Progress:
    """Plain lines; on a terminal a spinner that shows the last one until the script prints."""

    def __init__(self) -> None:
        self._status = None
        self._last: str | None = None
        self._counted_at = time.monotonic()

    def say(self, text: str) -> None:
        """A lasting line. The same text twice in a row is said once."""
        if text == self._last:
            return
        self._last = text
        self._stop()
        print(f"mlflow-compute: {text}", file=sys.stderr, flush=True)

    def waiting(self, text: str) -> None:
        """What is being waited for: a spinner on a terminal, a line elsewhere."""
        if not sys.stderr.isatty():
            self.say(text)
            return
        from rich.console import Console

        self._stop()
        self._status = Console(stderr=True).status(text)
        self._status.start()

    def count(self, text: str, done: int, total: int) -> None:
        """How far long work is, `{text}: 3 of 14`: each step on a terminal; elsewhere the last, and one in five seconds before it."""
        now = time.monotonic()
        if sys.stderr.isatty() or done == total or now - self._counted_at >= COUNT_EVERY_S:
            self._counted_at = now
            self.waiting(f"{text}: {done} of {total}")

    def output(self, text: str) -> None:
        """A piece of the script's own output, to standard output."""
        self._stop()
        sys.stdout.write(text)
        sys.stdout.flush()

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
