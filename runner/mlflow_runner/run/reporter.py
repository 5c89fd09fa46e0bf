"""The supervisor's side of the reporter: start it, wake it, wait for its outcome (`report` is the
program itself).
"""

import os
import subprocess
from typing import Callable, Optional

from mlflow_runner.contract.outcome import DELETED, GAVE_UP, REFUSED, Outcome
from mlflow_runner.contract.state import AFTER_END_S, DATA, QUIT, STATE
from mlflow_runner.contract.submission import Submission
from mlflow_runner.processes import program
from mlflow_runner.processes.supervise import Supervisor

MARGIN_S = 35.0
"""A call that the reporter makes at the end of its time may last so long (`web.CALL_S`), and it
starts and ends itself.
"""
QUIT_S = 2.0
"""A reporter that was told to end and waits for an answer is killed after so long."""
STARTS_AT_END = 2
"""A reporter that dies by a defect while it tells the end is started once more."""


class Reporter:
    """The process that talks to MLflow, so that a slow server or a large import never slows the
    run.

    `on_stop` is called when the run is not to go on: the server refused it from the beginning, or
    it was deleted in MLflow.
    """

    def __init__(self, directory: str, on_stop: Callable[[], None] = lambda: None):
        self._directory = directory
        self._on_stop = on_stop
        self._wake_fd: Optional[int] = None
        self._process: Optional[subprocess.Popen] = None

    def start(self, submission: Submission, supervisor: Supervisor) -> None:
        """Start it, again when it has died; not when it came to an outcome.

        One that lives looks at the state.
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
        """None as long as the reporter has not come to one."""
        return Outcome.read(self._directory)

    def wake(self) -> None:
        """Say that there is new output; never blocks."""
        self._send(DATA)

    def finish(self, submission: Submission, supervisor: Supervisor) -> Outcome:
        """Have the end in the state reported.

        A signal leaves it the time that a stopped run has. One more than the one that stopped the
        command ends it at once: the user does not want to wait for the server.
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

    def _stop(self, supervisor):
        self._send(QUIT)
        supervisor.wait_until(lambda: not self._lives(), QUIT_S)
        if self._lives():
            self._process.kill()
            supervisor.wait_until(lambda: not self._lives(), QUIT_S)

    def _lives(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def _exited(self, _code):
        outcome = self.outcome()
        if outcome and outcome.kind in (REFUSED, DELETED):
            self._on_stop()

    def _send(self, byte):
        if self._wake_fd is not None:
            try:
                os.write(self._wake_fd, byte)
            except (BlockingIOError, BrokenPipeError):
                pass
