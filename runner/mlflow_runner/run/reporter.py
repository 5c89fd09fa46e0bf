"""The supervisor's side of the reporter: start it, wake it, wait for its outcome (`report` is the
program itself).
"""

import contextlib
import os
import subprocess
from typing import Callable, Optional

from mlflow_runner.contract.outcome import DELETED, GAVE_UP, REFUSED, Outcome
from mlflow_runner.contract.state import AFTER_END_S, DATA, QUIT, STATE
from mlflow_runner.contract.submission import Submission
from mlflow_runner.processes import program
from mlflow_runner.processes.supervise import Supervisor

MARGIN_S = 35.0
"""Added to the reporter's time: a call made at its end may last this long (`web.CALL_S`), and the
process itself starts and ends.
"""
QUIT_S = 2.0
"""A reporter that was asked to end and still waits for an answer is killed after this time."""
STARTS_AT_END = 2
"""A reporter that crashes while it reports the end is started once more."""


class Reporter:
    """The process that talks to MLflow, so that a slow server or a slow import never delays the
    run.

    `on_stop` is called when the run must not continue: the server refused it at its start, or it
    was deleted in MLflow.
    """

    def __init__(self, directory: str, on_stop: Callable[[], None] = lambda: None) -> None:
        self._directory = directory
        self._on_stop = on_stop
        self._wake_fd: Optional[int] = None
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self, submission: Submission, supervisor: Supervisor) -> None:
        """Start the process, or wake it to read the state.

        Starts it again after a crash, but not after an outcome.
        """
        if self._lives():
            self._send(STATE)
            return
        if self.outcome():
            return
        if self._wake_fd is not None:
            os.close(self._wake_fd)
        path = os.path.join(self._directory, "submission.json")
        with open(path, "w") as file:
            file.write(submission.to_json())
        read_fd, self._wake_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        self._process = subprocess.Popen(
            program.command("report", path), stdin=read_fd, stdout=2, start_new_session=True
        )
        os.close(read_fd)
        supervisor.adopt(self._process, self._exited)

    def outcome(self) -> Optional[Outcome]:
        """The reporter's outcome; None until it has one."""
        return Outcome.read(self._directory)

    def wake(self) -> None:
        """Announce new output; never blocks."""
        self._send(DATA)

    def finish(self, submission: Submission, supervisor: Supervisor) -> Outcome:
        """Have the end in the state reported, and end the reporter.

        After a signal the reporter gets the time of a stopped run. A further signal ends it at
        once: the user does not want to wait for the server.
        """
        signals = max(1, supervisor.signals)
        for _ in range(STARTS_AT_END):
            self.start(submission, supervisor)
            limit_s = submission.report_timeout_s + AFTER_END_S + MARGIN_S
            supervisor.wait_until(
                lambda: not self._lives() or supervisor.signals > signals, limit_s, stops=True
            )
            if self._lives() or self.outcome():
                break
        self._stop(supervisor)
        return self.outcome() or Outcome(GAVE_UP)

    def _stop(self, supervisor: Supervisor) -> None:
        self._send(QUIT)
        supervisor.wait_until(lambda: not self._lives(), QUIT_S)
        if self._process and self._lives():
            self._process.kill()
            supervisor.wait_until(lambda: not self._lives(), QUIT_S)

    def _lives(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def _exited(self, _code: int) -> None:
        outcome = self.outcome()
        if outcome and outcome.kind in (REFUSED, DELETED):
            self._on_stop()

    def _send(self, byte: bytes) -> None:
        if self._wake_fd is not None:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._wake_fd, byte)
