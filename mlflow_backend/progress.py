"""What happens to a run while its script prints nothing: on standard error, for people."""

import sys


class Progress:
    """Plain lines; on a terminal a spinner that shows the last one until the script prints."""

    def __init__(self) -> None:
        self._status = None
        self._last: str | None = None

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

    def output(self, text: str) -> None:
        """A piece of the script's own output, to standard output."""
        self._stop()
        sys.stdout.write(text)
        sys.stdout.flush()

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
