"""A run whose runner is a child of this process."""

import codecs
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from mlflow.projects.submitted_run import SubmittedRun

from mlflow_backend import tracking
from mlflow_backend.progress import Progress
from mlflow_backend.project import Project
from mlflow_runner.causes import Cause
from mlflow_runner.state import State


class LocalRun(SubmittedRun):
    """The runner's process. Its output is kept until `wait` shows it.

    `why_not_started` explains an exit code and last words of a process that ended before the runner began in it.
    """

    def __init__(
        self,
        run_id: str,
        process: subprocess.Popen,
        progress: Progress | None,
        scratch: Path,
        project: Project,
        why_not_started: Callable[[int, str], str] | None,
    ):
        super().__init__()
        self._run_id = run_id
        self._process = process
        self._progress = progress
        self._scratch = scratch
        self._project = project
        self._why_not_started = why_not_started
        self._told = ""
        self._cancelled = False
        self._reader = threading.Thread(target=self._copy_output, daemon=True)
        self._reader.start()

    @property
    def run_id(self) -> str:
        return self._run_id

    def wait(self) -> bool:
        """True if the run FINISHED. The runner has told MLflow before it ends."""
        code = self._process.wait()
        self._reader.join(5)
        state = State.read(self._scratch)
        if code < 0 or (self._why_not_started and code and state.status is None):
            self._settle(code, state)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._project.discard()
        return code == 0

    def get_status(self) -> str:
        from mlflow.tracking import MlflowClient

        return MlflowClient().get_run(self._run_id).info.status

    def cancel(self) -> None:
        """Stop the command and wait until the run is KILLED in MLflow."""
        self._cancelled = True
        if self._process.poll() is None:
            self._process.terminate()
        self.wait()

    def _settle(self, code: int, state: State) -> None:
        """The runner was killed before it could tell the run's end: tell it in its place."""
        if self._why_not_started and not state.started and not self._cancelled:
            tracking.end(self._run_id, "FAILED", Cause.ENVIRONMENT_ERROR, self._why_not_started(code, self._told), abs(code))
        elif self._cancelled:
            tracking.end(self._run_id, "KILLED", Cause.CANCELLED, "The run was cancelled before its command was started.", _exit_code(code))
        else:
            tracking.end(self._run_id, "FAILED", Cause.RUNNER_LOST, "The runner was killed from outside.", _exit_code(code))

    def _copy_output(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while block := self._process.stdout.read1(65536):
            text = decoder.decode(block)
            self._told = (self._told + text)[-2000:]
            if self._progress:
                self._progress.output(text)


def _exit_code(code: int) -> int:
    """As a shell gives it: Popen's -9 is 137, and what `docker run` returns is so already."""
    return 128 - code if code < 0 else code
