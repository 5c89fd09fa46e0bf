"""The supervisor's side of the reporter: start it, wake it, wait for its last word (`report` is the program itself)."""

import os
import subprocess
import sys
from typing import Callable, Optional

from mlflow_runner.submission import Submission
from mlflow_runner.supervise import Supervisor

REFUSED = "refused.txt"
"""In the scratch folder: the words of a server that refused the run."""


class Reporter:
    """The process that talks to MLflow, so that a slow server or a large import never slows the run.

    `on_refused` is called when the server wants nothing to do with the run from the beginning.
    """

    def __init__(self, directory: str, on_refused: Callable[[], None] = lambda: None):
        self._directory = directory
        self._on_refused = on_refused
        self._wake_fd = None
        self._status = None

    def start(self, submission: Submission, supervisor: Supervisor) -> None:
        """Start it, or start it again when it has died; not when the server refused the run."""
        if self.refusal() or (self._wake_fd is not None and self._status is None):
            return
        self._status = None
        if self._wake_fd is not None:
            os.close(self._wake_fd)
        path = os.path.join(self._directory, "submission.json")
        with open(path, "w") as file:
            file.write(submission.to_json())
        read_fd, self._wake_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        process = subprocess.Popen([sys.executable, sys.argv[0], "report", path], stdin=read_fd, stdout=2, start_new_session=True)
        os.close(read_fd)
        supervisor.adopt(process, self._exited)

    def _exited(self, status):
        self._status = status
        if self.refusal():
            self._on_refused()

    def refusal(self) -> Optional[str]:
        """The words of a server that refused the run; None when it did not."""
        try:
            with open(os.path.join(self._directory, REFUSED)) as file:
                return file.read()
        except OSError:
            return None

    def wake(self) -> None:
        """Say that there is something new; never blocks."""
        self._send(b"d")

    def finish(self, supervisor: Supervisor, timeout_s: float) -> bool:
        """Have the end reported; False when that was not possible within `timeout_s` seconds."""
        if self.refusal():
            return False
        self._send(b"e")
        supervisor.wait_until(lambda: self._status is not None, timeout_s + 5)
        return self._status == 0

    def _send(self, byte):
        if self._wake_fd is not None:
            try:
                os.write(self._wake_fd, byte)
            except (BlockingIOError, BrokenPipeError):
                pass
