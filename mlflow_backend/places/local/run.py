"""A run whose runner is a child of this process."""

import codecs
import os
import subprocess
import threading
import time
import weakref
from pathlib import Path
from typing import NamedTuple

from mlflow.projects.submitted_run import SubmittedRun

from mlflow_backend import scratch as scratch_folders
from mlflow_backend.errors import raise_as_mlflow
from mlflow_backend.places.local.end import WhyNotStarted, final_state, settle
from mlflow_backend.progress import Progress
from mlflow_backend.request.project import Project
from mlflow_backend.tracking import runs as mlflow_runs
from mlflow_runner.contract.ending import describe
from mlflow_runner.contract.outcome import DELETED, ENDED, Outcome
from mlflow_runner.contract.state import State
from mlflow_runner.contract.tags import TAG_LOG
from mlflow_runner.report.log import Log

ORPHAN_S = 10.0
"""The reporter outlives a runner that was killed, and reports the end and the rest of the log: how
long to wait for it.
"""
STOP_MARGIN_S = 10.0
"""How long reporting may take after the grace period of a cancelled run; then a second signal ends
it.
"""
BLOCK_BYTES = 65536
LAST_CHARS = 2000


class LocalRun(SubmittedRun):  # type: ignore[misc]  # mypy does not follow MLflow's imports
    """The runner's process. `progress` shows its output, None for no output. `tracking_uri` is the
    client's own.
    """

    def __init__(
        self,
        run_id: str,
        process: subprocess.Popen[bytes],
        progress: Progress | None,
        scratch: Path,
        project: Project,
        why_not_started: WhyNotStarted | None,
        tracking_uri: str,
        grace_period_s: float,
    ) -> None:
        super().__init__()
        self._run_id = run_id
        self._process = process
        self._progress = progress
        self._scratch = scratch
        self._project = project
        self._why_not_started = why_not_started
        self._tracking_uri = tracking_uri
        self._grace_period_s = grace_period_s
        self._last_output = ""
        self._cancelled = False
        self._lock = threading.Lock()
        self._left: _Left | None = None
        self._end: str | None = None
        self._remove_folders = weakref.finalize(self, _remove_folders, process, scratch, project)
        self._reader = threading.Thread(target=self._copy_output, daemon=True)
        self._reader.start()

    @property
    def run_id(self) -> str:
        """The id of the run in MLflow."""
        return self._run_id

    @raise_as_mlflow()
    def wait(self) -> bool:
        """Wait for the run's end; True if it FINISHED.

        Where the runner could not write the end to MLflow, it is written from here by the same
        rules; raises ExecutionException when that is not possible either.
        """
        self._process.wait()
        return self._settled() == "FINISHED"

    @raise_as_mlflow()
    def get_status(self) -> str:
        """The run's status in MLflow: SCHEDULED, RUNNING, FINISHED, FAILED or KILLED."""
        return str(mlflow_runs.get_run(self._run_id).info.status)

    @raise_as_mlflow()
    def cancel(self) -> None:
        """Stop the command and wait until the run is KILLED in MLflow; a run that has ended does
        not change.
        """
        if self._process.poll() is None:
            self._cancelled = True
            self._stop()
        self._settled()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(self._grace_period_s + STOP_MARGIN_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            # the tracking server does not answer, or the user does not want to wait
            self._process.terminate()
            self._process.wait()

    def _settled(self) -> str:
        """The status in MLflow of the run whose process has ended.

        The first caller determines it, every other gets the same.
        """
        with self._lock:
            if self._end is None:
                left = self._collect()
                outcome = left.outcome
                if outcome is None or outcome.kind not in (ENDED, DELETED):
                    outcome = self._settle(left)
                self._end = "KILLED" if outcome.kind == DELETED else str(outcome.status)
            return self._end

    def _settle(self, left: "_Left") -> Outcome:
        outcome = settle(self._run_id, self._tracking_uri, left.state, left.missing)
        if self._progress and outcome.kind == ENDED:
            self._progress.say(
                describe(str(outcome.status), left.state.exit_code, outcome.cause, outcome.message)
            )
        return outcome

    def _collect(self) -> "_Left":
        """What the runner left, read once: the folder, which holds credentials, is removed."""
        if self._left is None:
            try:
                self._reader.join(5)
                code = self._process.returncode
                outcome = Outcome.read(str(self._scratch)) or self._wait_for_orphan(code)
                why = (
                    self._why_not_started(code, self._last_output)
                    if self._why_not_started and code
                    else None
                )
                state = final_state(State.read(str(self._scratch)), code, self._cancelled, why)
                missing = Log(os.fspath(self._scratch), lambda text: None).missing(
                    "the runner could not send them"
                )
                self._left = _Left(state, outcome, {TAG_LOG: missing} if missing else {})
            finally:
                self._remove_folders()
        return self._left

    def _wait_for_orphan(self, code: int) -> Outcome | None:
        """The outcome of a reporter that outlives its runner; None if there is none, or it takes
        longer than ORPHAN_S.
        """
        deadline = time.monotonic() + ORPHAN_S
        while (
            code < 0
            and self._why_not_started is None
            and State.read(str(self._scratch)).started
            and time.monotonic() < deadline
        ):
            if outcome := Outcome.read(str(self._scratch)):
                return outcome
            time.sleep(0.05)
        return None

    def _copy_output(self) -> None:
        if progress := self._progress:
            progress.begin(f"{self._project.name}-{self._run_id[:8]}")
        try:
            self._copy()
        finally:
            if progress:
                progress.end()
        self._process.wait()

    def _copy(self) -> None:
        if (output := self._process.stdout) is None:
            return
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while block := os.read(output.fileno(), BLOCK_BYTES):
            text = decoder.decode(block)
            self._last_output = (self._last_output + text)[-LAST_CHARS:]
            self._show(text)

    def _show(self, text: str) -> None:
        try:
            if self._progress:
                self._progress.output(text)
        except (OSError, ValueError):
            # standard output is closed (`| head -1`): the run continues, and its output is read
            self._progress = None


def _remove_folders(process: subprocess.Popen[bytes], scratch: Path, project: Project) -> None:
    """Remove the folders of a process that has ended, whether or not a client waits for it.

    A runner that outlives this process removes them itself.
    """
    if process.poll() is not None:
        scratch_folders.discard(scratch)
        project.discard()


class _Left(NamedTuple):
    """What a run leaves whose process has ended; `missing` are tags that say which part of the log
    was not sent.
    """

    state: State
    outcome: Outcome | None
    missing: dict[str, str]
