"""The end of a run: what its command's exit means, written to the termination message, to MLflow
and to the log, in this order.

Loaded after the command has run, so that the command's start does not wait for it.
"""

import signal
from typing import Optional

from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import describe
from mlflow_runner.contract.outcome import DELETED, ENDED, REFUSED, Outcome
from mlflow_runner.contract.state import State
from mlflow_runner.contract.submission import Submission
from mlflow_runner.log.output import Output
from mlflow_runner.processes.supervise import Exit, Supervisor
from mlflow_runner.run.reporter import Reporter
from mlflow_runner.run.termination import write_message

STOPPED_CLOSE_S, CLOSE_S = 0.5, 5.0
"""How long the reader of the log may take for its last lines, after a stop and otherwise."""


class Closing:
    """Ends the run, once: by `after_exit` or `after_error`, which return the runner's exit code."""

    def __init__(
        self,
        submission: Submission,
        state: State,
        output: Output,
        reporter: Reporter,
        supervisor: Supervisor,
    ) -> None:
        self._submission = submission
        self._state = state
        self._output = output
        self._reporter = reporter
        self._supervisor = supervisor

    def after_exit(self, exit_: Exit, oom_killed: bool) -> int:
        """End the run after its command has exited.

        `oom_killed`: the kernel has killed a process of the container since the run began.
        """
        code, state = exit_.code, self._state
        if self._supervisor.stopped_by is not None:
            return self._after_stop(self._supervisor.stopped_by, code)
        if code == 0:
            return self._end("FINISHED", 0)
        if code in self._submission.retry_on and state.attempt <= self._submission.retries:
            message = f"Attempt {state.attempt} exited with code {code}: another attempt follows."
            return self._end("SCHEDULED", code, message=message)
        if oom_killed:
            message = (
                "A process of the command was killed because the container ran out of memory: "
                "raise 'resources.memory' in the target."
            )
            return self._end("FAILED", code, Cause.OOM_KILLED, message)
        how = (
            f"was killed by {_signal_name(exit_.signal)}"
            if exit_.signal
            else f"exited with code {code}"
        )
        message = f"The command {how}: see the end of the log."
        return self._end("FAILED", code, Cause.EXIT_CODE, message)

    def after_error(self, cause: str, message: str) -> int:
        """End the run after an error of the runner. An error after a stop counts as the stop."""
        if self._supervisor.stopped_by is not None:
            return self._after_stop(self._supervisor.stopped_by, 128 + self._supervisor.stopped_by)
        return self._end("FAILED", 1, cause, message)

    def _after_stop(self, number: int, exit_code: int) -> int:
        outcome = self._reporter.outcome()
        if outcome and outcome.kind == REFUSED:
            return self._end_refused(outcome, exit_code)
        if outcome and outcome.kind == DELETED:
            message = "The run was deleted in MLflow."
            return self._end("KILLED", exit_code or 1, Cause.CANCELLED, message)
        # a stopped run is not a success, even if its command exits with 0
        return self._end(
            "KILLED",
            exit_code or 128 + number,
            self._submission.stopped_means,
            f"The run was stopped by {_signal_name(number)}.",
        )

    def _end_refused(self, outcome: Outcome, exit_code: int) -> int:
        message = f"The tracking server refuses this run: {outcome.message}"
        return self._end("FAILED", exit_code or 1, Cause.TRACKING_ERROR, message)

    def _end(
        self,
        status: str,
        exit_code: int,
        cause: Optional[str] = None,
        message: Optional[str] = None,
    ) -> int:
        state = self._state
        state.status, state.exit_code, state.cause, state.message = (
            status,
            exit_code,
            cause,
            message,
        )
        # first, because the pod may be killed at any moment
        self._write_termination_log(Outcome(ENDED, status, cause, message), reported=False)
        self._output.say(describe(status, exit_code, cause, message))
        state.write(self._submission.scratch_dir)
        outcome = self._reporter.finish(self._submission, self._supervisor)
        if outcome.kind == REFUSED and cause != Cause.TRACKING_ERROR:
            return self._end_refused(outcome, exit_code)
        self._say_farewell(outcome)
        self._output.close(CLOSE_S if self._supervisor.stopped_by is None else STOPPED_CLOSE_S)
        return exit_code

    def _say_farewell(self, outcome: Outcome) -> None:
        """Log the outcome of reporting; a waiting client looks for the last line."""
        if outcome.kind == ENDED:
            self._write_termination_log(outcome, reported=True)
            if outcome.status != self._state.status:
                self._output.say(
                    describe(
                        str(outcome.status), self._state.exit_code, outcome.cause, outcome.message
                    )
                )
        elif outcome.kind == DELETED:
            self._output.say("the run was deleted in MLflow: its end is not recorded there")
        else:
            self._output.say("the run's end has not been reported to the tracking server")
        self._output.say(
            f"run {self._submission.run_id} has ended {self._submission.mark}".rstrip()
        )

    def _write_termination_log(self, end: Outcome, reported: bool) -> None:
        if self._submission.termination_log:
            write_message(self._submission.termination_log, end, self._state.exit_code, reported)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
