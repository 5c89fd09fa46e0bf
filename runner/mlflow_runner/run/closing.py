"""The end of a run: what its command's exit means, told in the termination message, to MLflow and
in the log, in this order.

Loaded when the command has run (see `run`): its start does not wait for it.
"""

import json
import signal
from typing import Optional

from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import describe
from mlflow_runner.contract.outcome import DELETED, REFUSED, TOLD, Outcome
from mlflow_runner.contract.state import State
from mlflow_runner.contract.submission import Submission
from mlflow_runner.log.output import Output
from mlflow_runner.processes.supervise import Exit, Supervisor
from mlflow_runner.run.reporter import Reporter

TERMINATION_BYTES = 4096
STOPPED_CLOSE_S, CLOSE_S = 0.5, 5.0
"""How long the reader of the log may take for its last lines."""


class Closing:
    """Ends the run.

    Each method but the constructor ends it and returns the exit code of the runner.
    """

    def __init__(
        self,
        submission: Submission,
        state: State,
        output: Output,
        reporter: Reporter,
        supervisor: Supervisor,
    ):
        self._submission = submission
        self._state = state
        self._output = output
        self._reporter = reporter
        self._supervisor = supervisor

    def after_exit(self, exit_: Exit, oom_killed: bool) -> int:
        """Its command ended.

        `oom_killed`: the kernel has killed a process of the container since the run began.
        """
        code, state = exit_.code, self._state
        if self._supervisor.stopped_by is not None:
            return self._after_stop(code)
        if code == 0:
            return self._end("FINISHED", 0)
        if code in self._submission.retry_on and state.attempt <= self._submission.retries:
            return self._end(
                "SCHEDULED",
                code,
                message=f"Attempt {state.attempt} exited with code {code}: the next one follows.",
            )
        if oom_killed:
            message = (
                "A process of the command was killed because the container's memory was used up. "
                "Raise 'resources.memory' in the target."
            )
            return self._end("FAILED", code, cause=Cause.OOM_KILLED, message=message)
        how = (
            f"was killed by {_signal_name(exit_.signal)}"
            if exit_.signal
            else (f"exited with code {code}")
        )
        return self._end(
            "FAILED",
            code,
            cause=Cause.EXIT_CODE,
            message=f"The command {how}: see the log's last lines.",
        )

    def after_error(self, cause: Cause, message: str) -> int:
        """The runner could not go on. An error that a stop has caused is none."""
        if self._supervisor.stopped_by is not None:
            return self._after_stop(128 + self._supervisor.stopped_by)
        return self._end("FAILED", 1, cause, message)

    def _after_stop(self, exit_code: int) -> int:
        outcome = self._reporter.outcome()
        if outcome and outcome.kind == REFUSED:
            return self._end(
                "FAILED", exit_code or 1, cause=Cause.TRACKING_ERROR, message=_refused(outcome)
            )
        if outcome and outcome.kind == DELETED:
            return self._end(
                "KILLED",
                exit_code or 1,
                cause=Cause.CANCELLED,
                message="The run was deleted in MLflow.",
            )
        number = self._supervisor.stopped_by
        # a stopped run is no success, though its command ended in order
        name, exit_code = _signal_name(number), exit_code or 128 + number
        return self._end(
            "KILLED",
            exit_code,
            cause=self._submission.stopped_means,
            message=f"The run was stopped by {name}.",
        )

    def _end(
        self,
        status: str,
        exit_code: int,
        cause: Optional[Cause] = None,
        message: Optional[str] = None,
    ) -> int:
        state = self._state
        state.status, state.exit_code, state.cause, state.message = (
            status,
            exit_code,
            cause,
            message,
        )
        # first: the next moment may be the pod's last
        self._write_termination_log(Outcome(TOLD, status, cause, message), reported=False)
        self._output.say(describe(status, exit_code, cause, message))
        state.write(self._submission.scratch_dir)
        outcome = self._reporter.finish(self._submission, self._supervisor)
        if outcome.kind == REFUSED and cause != Cause.TRACKING_ERROR:
            return self._end(
                "FAILED", exit_code or 1, cause=Cause.TRACKING_ERROR, message=_refused(outcome)
            )
        self._say_farewell(outcome)
        self._output.close(CLOSE_S if self._supervisor.stopped_by is None else STOPPED_CLOSE_S)
        return exit_code

    def _say_farewell(self, outcome: Outcome) -> None:
        """What came of reporting; the last line is the one that a waiting client looks for."""
        if outcome.kind == TOLD:
            self._write_termination_log(outcome, reported=True)
            if outcome.status != self._state.status:
                self._output.say(
                    describe(
                        str(outcome.status), self._state.exit_code, outcome.cause, outcome.message
                    )
                )
        elif outcome.kind == DELETED:
            self._output.say("the run was deleted in MLflow, which does not know its end")
        else:
            self._output.say("the tracking server does not know the run's end yet")
        self._output.say(
            f"run {self._submission.run_id} has ended {self._submission.mark}".rstrip()
        )

    def _write_termination_log(self, told: Outcome, reported: bool) -> None:
        """What `kubectl describe pod` shows, and what is left to tell the end when MLflow could not
        be.
        """
        if self._submission.termination_log:
            try:
                with open(self._submission.termination_log, "w") as file:
                    file.write(termination_message(told, self._state.exit_code, reported))
            except OSError:
                pass  # the log has it too


def termination_message(told: Outcome, exit_code: Optional[int], reported: bool) -> str:
    """The end as JSON, its message shortened to what the kubelet keeps whole (4096 bytes, or the
    JSON would be none).
    """
    message = told.message or ""
    while True:
        known = {
            "status": told.status,
            "exit_code": exit_code,
            "cause": told.cause,
            "message": message,
            "reported": reported,
        }
        text = json.dumps(known)
        if len(text) <= TERMINATION_BYTES or not message:
            return text
        message = message[: len(message) // 2]


def _refused(outcome: Outcome) -> str:
    return f"The tracking server refuses this run: {outcome.message}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
