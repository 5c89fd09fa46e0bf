"""The reporter's main thread: it keeps the status up to date and listens to the supervisor."""

import os
import select
import sys
import time
from typing import Callable, Dict, Optional

from mlflow_runner.contract.answers import NeedsMlflow, Refused, Unavailable
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
from mlflow_runner.report.files import Files, files_to_keep
from mlflow_runner.report.log import Log
from mlflow_runner.report.status import Deleted, Status
from mlflow_runner.report.uploads import Uploads
from mlflow_runner.tracking import connect, connect_artifacts, login

LOOK_S = (15.0, 120.0)
"""A run that is deleted in MLflow while it runs is noticed after a tenth of its age, within these
limits: 1,000 runs of an hour ask 8 times a second.
"""
LOG_FIRST_S = 5.0
"""The end waits so long for a log that is on its way, so that a run that is seen FINISHED normally
has its whole log.
"""
PIPE_BYTES = 65536
"""What a pipe holds: a read that returns so much may have left no room for a message about the
state.
"""
TAG_CHARS = 500


def look_again_s(began_s: float, now_s: float) -> float:
    """When to ask MLflow for the run again, of a run whose reporting began at `began_s`."""
    least_s, most_s = LOOK_S
    return now_s + min(most_s, max(least_s, (now_s - began_s) / 10))


class Report:
    """The reporting of one run."""

    def __init__(self, submission: Submission, directory):
        self._submission = submission
        self._directory = os.fspath(directory)
        self._status = Status(
            directory,
            lambda: connect(
                submission.tracking_uri, submission.run_id, submission.credential_hosts
            ),
        )
        first = State.read(directory)
        self._log, self._files = (
            Log(directory, say, submission.topology.log_folder(first.index)),
            Files(directory, say, files_to_keep(submission) if first.speaks else ()),
        )
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
        """Report until the end is known to the server, or it cannot be told in time.

        Raises Refused when the server rejects the run from the beginning, and Deleted when the run
        is gone.
        """
        while True:
            state = self._state()
            if state.status:
                return self._end(state)
            self._attempt(lambda state=state: self._look(state))
            self._listen(
                self._backoff.due_s
                if self._backoff.failures
                else look_again_s(self._began_s, time.monotonic())
            )

    def _state(self) -> State:
        state = State.read(self._directory)
        if self._orphaned and not state.status:
            state.status, state.exit_code, state.cause = "FAILED", 137, Cause.RUNNER_LOST
            state.message = "The runner was killed before the command ended."
        return state

    def _look(self, state) -> bool:
        self._status.look(state)
        self._start_uploads()
        return True

    def _start_uploads(self):
        """Once it is known where artifacts lie."""
        if not self._uploads_started:
            uri, submission = self._status.found.artifact_uri, self._submission
            self._uploads.start(
                lambda: connect_artifacts(
                    submission.tracking_uri, submission.run_id, uri, submission.credential_hosts
                )
            )
            self._uploads_started = True

    def _end(self, state) -> Outcome:
        """The log first if it comes soon, then the end, then what is left of log and files."""
        until_s = time.monotonic() + self._submission.report_timeout_s
        self._uploads.close()
        if self._uploads_started or self._attempt(lambda: self._look(state)):
            self._listen(time.monotonic() + LOG_FIRST_S, self._uploads.log_is_settled)
        outcome = self._until(until_s, lambda: self._tell_end(state))
        if outcome is None:
            return Outcome(GAVE_UP)
        self._start_uploads()
        if outcome.status != state.status:
            self._uploads.append(
                describe(outcome.status, state.exit_code, outcome.cause, outcome.message)
            )
        self._finish(state, outcome)
        return outcome

    def _tell_end(self, state) -> Outcome:
        outcome = self._status.tell_end(
            state, self._missing() if self._uploads.have_given_up() else {}
        )
        outcome.write(self._directory)
        return outcome

    def _finish(self, state, outcome):
        until_s = time.monotonic() + min(AFTER_END_S, self._submission.report_timeout_s)
        is_over = outcome.status in ("FAILED", "KILLED") and outcome.cause != Cause.TERMINATED
        if is_over and state.speaks:
            self._until(until_s, lambda: self._end_children(state, outcome))
        self._listen(until_s, self._uploads.are_settled)
        if state.speaks and (missing := self._missing()):
            self._attempt(lambda: self._status.tell_tags(missing))

    def _end_children(self, state, outcome) -> bool:
        try:
            end_children(self._status.run, self._status.found, outcome, state.pod, say)
        except Refused as error:
            say(f"runs that this run began cannot be ended: {error}")
        return True

    def _missing(self) -> Dict[str, str]:
        """Tags that say what of log and files has not arrived, and why."""
        found = {TAG_LOG: self._log.missing(), TAG_FILES: self._files.missing()}
        return {tag: text[:TAG_CHARS] for tag, text in found.items() if text}

    def _attempt(self, function):
        """What `function` returns; None when it has to be tried again.

        Raises Refused and Deleted.
        """
        try:
            result = function()
        except (Refused, Deleted):
            raise
        except NeedsMlflow as error:
            self._give_way_to_environment()
            self._needs_mlflow = True
            self._failed(
                f"the tracking server cannot be called: {error}; use an image that has it, such as "
                "runner/Dockerfile makes"
            )
        except Unavailable as error:
            self._failed(f"the tracking server does not answer, retrying: {error}")
        except Exception as error:
            # whatever a server has made us stumble over may be gone at the next try
            self._failed(
                f"the tracking server could not be told, retrying: {type(error).__name__}: {error}"
            )
        else:
            if self._backoff.failures:
                say("the tracking server answers again")
            self._backoff.succeed()
            return result
        return None

    def _failed(self, words):
        self._backoff.fail(time.monotonic())
        if self._backoff.failures == 1:
            say(words)

    def _until(self, until_s: float, function):
        """What `function` returns in the end; None when the time is over, or trying again makes no
        sense.
        """
        while True:
            result = self._attempt(function)
            if (
                result is not None
                or self._needs_mlflow
                or self._is_left_alone()
                or time.monotonic() >= until_s
            ):
                return result
            self._listen(min(until_s, self._backoff.due_s), self._is_left_alone)

    def _is_left_alone(self) -> bool:
        """Whether the supervisor has told this process to end, or a client has told the end and
        removed the folder.
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
                    self._give_way_to_environment()
            if 0 in ready and self._hear(os.read(0, PIPE_BYTES)) and not done:
                return

    def _hear(self, data: bytes) -> bool:
        """Take in what the supervisor says; whether the state may have changed."""
        self._orphaned = not data
        self._quit = QUIT in data
        if DATA in data:
            self._uploads.news()
        return not data or STATE in data or len(data) >= PIPE_BYTES

    def _other_python(self) -> Optional[str]:
        """The Python of the run's environment, which may have mlflow where this one has not; None
        when there is none yet.
        """
        environment = self._submission.environment
        if environment:
            from mlflow_runner.environment import prefix

            python = os.path.join(prefix(environment, self._submission.cache_dir), "bin", "python")
            if os.path.exists(python) and python != sys.executable:
                return python
        return None

    def _give_way_to_environment(self):
        python = self._other_python()
        if python:
            os.execv(python, [python, program.ISOLATED, *sys.argv])


def say(text: str) -> None:
    """A line in the runner's own output, if anybody reads it; not in the log that is kept."""
    try:
        sys.stderr.write(f"{PREFIX}{as_line(login.hide(text))}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # `mlflow run ... 2>&1 | head`
