"""The reporter's main thread: it keeps the status up to date and listens to the supervisor."""

import os
import select
import sys
import time
from typing import Callable, Dict, Optional, Tuple, TypeVar

from mlflow_runner.contract.answers import NeedsMlflow, Refused, RunInfo, Unavailable
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import describe
from mlflow_runner.contract.outcome import GAVE_UP, Outcome
from mlflow_runner.contract.state import AFTER_END_S, DATA, QUIT, STATE, State
from mlflow_runner.contract.submission import Submission
from mlflow_runner.contract.tags import TAG_FILES, TAG_LOG
from mlflow_runner.log.output import PREFIX, as_line
from mlflow_runner.processes import program
from mlflow_runner.report.backoff import Backoff
from mlflow_runner.report.children import end_children
from mlflow_runner.report.files import Files, list_files
from mlflow_runner.report.log import Log
from mlflow_runner.report.status import Deleted, Status
from mlflow_runner.report.uploads import Uploads
from mlflow_runner.tracking import connect, connect_artifacts, login

T = TypeVar("T")

LOOK_S = (15.0, 120.0)
"""The deletion of a running run in MLflow is noticed after a tenth of the run's age, within these
limits: 1,000 runs that are an hour old send 8 requests a second.
"""
LOG_FIRST_S = 5.0
"""How long the end waits for the log, so that a run that is FINISHED normally has its whole log."""
PIPE_BYTES = 65536
"""The capacity of a pipe: a read of so many bytes may have left no room for a message about the
state.
"""
TAG_CHARS = 500


def look_again_s(began_s: float, now_s: float) -> float:
    """When to read the run from MLflow again, if reporting began at `began_s`."""
    least_s, most_s = LOOK_S
    return now_s + min(most_s, max(least_s, (now_s - began_s) / 10))


class Report:
    """The reporting of one run, from the files in `directory`."""

    def __init__(self, submission: Submission, directory: str) -> None:
        self._submission = submission
        self._directory = directory
        self._status = Status(
            directory,
            lambda: connect(
                submission.tracking_uri, submission.run_id, submission.credential_hosts
            ),
        )
        first = State.read(directory)
        self._log = Log(directory, say, submission.topology.log_folder(first.index))
        self._files = Files(directory, say, list_files(submission) if first.speaks else ())
        self._passed, self._pass_done = os.pipe()
        self._uploads = Uploads(
            self._log,
            self._files,
            lambda: os.write(self._pass_done, b"."),
            lambda: bool(self._other_python()),
        )
        self._uploads_started = False
        self._began_s = time.monotonic()
        self._backoff = Backoff()
        self._orphaned = self._quit = self._needs_mlflow = False

    def follow(self) -> Outcome:
        """Report until the server has the end, or the time limit is reached.

        Raises Refused if the server rejects the run from the beginning, and Deleted if the run is
        deleted.
        """
        while not (state := self._state()).status:
            self._look(state)
            self._listen(
                self._backoff.due_s
                if self._backoff.failures
                else look_again_s(self._began_s, time.monotonic())
            )
        return self._end(state)

    def _state(self) -> State:
        state = State.read(self._directory)
        if self._orphaned and not state.status:
            state.status, state.exit_code, state.cause = "FAILED", 137, Cause.RUNNER_LOST
            state.message = "The runner was killed before the command ended."
        return state

    def _look(self, state: State) -> bool:
        """Whether the server answered; then the uploads are running."""

        def look() -> bool:
            self._start_uploads(self._status.look(state))
            return True

        return bool(self._attempt(look))

    def _start_uploads(self, info: RunInfo) -> None:
        """Start once the location of the artifacts is known."""
        if not self._uploads_started:
            submission = self._submission
            self._uploads.start(
                lambda: connect_artifacts(
                    submission.tracking_uri,
                    submission.run_id,
                    info.artifact_uri,
                    submission.credential_hosts,
                )
            )
            self._uploads_started = True

    def _end(self, state: State) -> Outcome:
        """The log first if it arrives soon, then the end, then the rest of log and files."""
        until_s = time.monotonic() + self._submission.report_timeout_s
        self._uploads.close()
        if self._uploads_started or self._look(state):
            self._listen(time.monotonic() + LOG_FIRST_S, self._uploads.log_is_settled)
        written = self._until(until_s, lambda: self._write_end(state))
        if written is None:
            return Outcome(GAVE_UP)
        info, outcome = written
        if outcome.status != state.status:
            self._uploads.append(
                describe(str(outcome.status), state.exit_code, outcome.cause, outcome.message)
            )
        self._finish(state, info, outcome)
        return outcome

    def _write_end(self, state: State) -> Tuple[RunInfo, Outcome]:
        tags = self._missing() if self._uploads.have_given_up() else {}
        info, outcome = self._status.write_end(state, tags)
        outcome.write(self._directory)
        self._start_uploads(info)
        return info, outcome

    def _finish(self, state: State, info: RunInfo, outcome: Outcome) -> None:
        until_s = time.monotonic() + min(AFTER_END_S, self._submission.report_timeout_s)
        is_over = outcome.status in ("FAILED", "KILLED") and outcome.cause != Cause.TERMINATED
        if is_over and state.speaks:
            self._until(until_s, lambda: self._end_children(state, info, outcome))
        self._listen(until_s, self._uploads.are_settled)
        if state.speaks and (missing := self._missing()):
            self._attempt(lambda: self._status.write_tags(missing))

    def _end_children(self, state: State, info: RunInfo, outcome: Outcome) -> bool:
        try:
            end_children(self._status.run, info, outcome, state.pod, say)
        except Refused as error:
            say(f"could not end the nested runs of this run: {error}")
        return True

    def _missing(self) -> Dict[str, str]:
        """Tags that say what of log and files has not arrived, and why."""
        reasons = {TAG_LOG: self._log.missing(), TAG_FILES: self._files.missing()}
        return {tag: text[:TAG_CHARS] for tag, text in reasons.items() if text}

    def _attempt(self, function: Callable[[], T]) -> Optional[T]:
        """What `function` returns; None if it must be retried.

        Raises Refused and Deleted.
        """
        try:
            result = function()
        except (Refused, Deleted):
            raise
        except NeedsMlflow as error:
            self._switch_python()
            self._needs_mlflow = True
            self._fail(f"{error}: use an image that contains it, or add it to the environment")
        except Unavailable as error:
            self._fail(f"a call to the tracking server failed, retrying: {error}")
        except Exception as error:
            # an unexpected answer may be different at the next try
            self._fail(
                f"a call to the tracking server failed, retrying: {type(error).__name__}: {error}"
            )
        else:
            if self._backoff.failures:
                say("the tracking server answers again")
            self._backoff.succeed()
            return result
        return None

    def _fail(self, message: str) -> None:
        self._backoff.fail(time.monotonic())
        if self._backoff.failures == 1:
            say(message)

    def _until(self, until_s: float, function: Callable[[], T]) -> Optional[T]:
        """What `function` returns in the end; None if the time limit is reached or retries are
        useless.
        """
        while True:
            result = self._attempt(function)
            if (
                result is not None
                or self._needs_mlflow
                or self._is_abandoned()
                or time.monotonic() >= until_s
            ):
                return result
            self._listen(min(until_s, self._backoff.due_s), self._is_abandoned)

    def _is_abandoned(self) -> bool:
        """Whether the supervisor has asked this process to exit, or a client has written the end
        and removed the folder.
        """
        return self._quit or (self._orphaned and not os.path.isdir(self._directory))

    def _listen(self, until_s: float, done: Optional[Callable[[], bool]] = None) -> None:
        """Wait until `until_s` or `done()`; without `done`, until the state may have changed."""
        while (
            not self._quit and not (done and done()) and (left_s := until_s - time.monotonic()) > 0
        ):
            ready = select.select(
                [self._passed] if self._orphaned else [self._passed, 0], [], [], left_s
            )[0]
            if self._passed in ready:
                os.read(self._passed, PIPE_BYTES)
                if self._uploads.needs_mlflow:
                    self._switch_python()
            if 0 in ready and self._hear(os.read(0, PIPE_BYTES)) and not done:
                return

    def _hear(self, data: bytes) -> bool:
        """Process what the supervisor sends; whether the state may have changed."""
        self._orphaned = not data
        self._quit = QUIT in data
        if DATA in data:
            self._uploads.news()
        return not data or STATE in data or len(data) >= PIPE_BYTES

    def _other_python(self) -> Optional[str]:
        """The Python of the run's environment, which may have mlflow where this one does not; None
        if it does not exist yet.
        """
        environment = self._submission.environment
        if environment:
            from mlflow_runner.environment import prefix

            python = os.path.join(prefix(environment, self._submission.cache_dir), "bin", "python")
            if os.path.exists(python) and python != sys.executable:
                return python
        return None

    def _switch_python(self) -> None:
        """Restart this process under the Python of the run's environment, if it exists."""
        python = self._other_python()
        if python:  # the path is that of the run's own environment
            os.execv(python, [python, program.ISOLATED, *sys.argv])  # noqa: S606


def say(text: str) -> None:
    """Write a line to the runner's own output, which is not part of the stored log."""
    try:
        sys.stderr.write(f"{PREFIX}{as_line(login.hide(text))}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # `mlflow run ... 2>&1 | head`
