"""How a run on this machine ended, and writing the end to MLflow where its reporter could not, by
the same rules.
"""

from collections.abc import Callable, Mapping

from mlflow_backend.errors import TrackingError, TrackingUnavailable
from mlflow_backend.tracking.answers import ERROR_CODES
from mlflow_runner.contract.answers import Missing, Refused, Unavailable
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import describe, is_told
from mlflow_runner.contract.outcome import DELETED, ENDED, Outcome
from mlflow_runner.contract.state import State
from mlflow_runner.contract.tags import TAG_CAUSE, TAG_MESSAGE
from mlflow_runner.report.children import end_children
from mlflow_runner.report.status import write_end
from mlflow_runner.tracking.client import ClientRun

WhyNotStarted = Callable[[int, str], str]
"""Explains the exit code and the last output of a process that ended before its runner started."""


def final_state(state: State, code: int, cancelled: bool, why_not_started: str | None) -> State:
    """The state that the runner left, completed where the runner ended before it knew the run's
    end.

    `code` is that of its process, as Popen returns it; `why_not_started` a sentence for a runner
    that did not start.
    """
    if not state.status:
        # `docker run` returns a code as a shell does
        state.exit_code = 128 - code if code < 0 else code
        state.status = "KILLED" if cancelled else "FAILED"
        state.cause, state.message = _explain(state, code, cancelled, why_not_started)
    return state


def _explain(
    state: State, code: int, cancelled: bool, why_not_started: str | None
) -> tuple[Cause, str]:
    if cancelled:
        return Cause.CANCELLED, "The run was cancelled before its command started."
    if why_not_started and not state.started:
        return Cause.ENVIRONMENT_ERROR, why_not_started
    if code < 0 or code >= 128:
        return Cause.RUNNER_LOST, "The runner was killed from outside."
    return Cause.RUNNER_ERROR, f"The runner exited with code {code} before the run ended."


def settle(run_id: str, tracking_uri: str, state: State, tags: Mapping[str, str]) -> Outcome:
    """Write the end of `state` and `tags` with this process's own login, unless MLflow has an end.

    Raises TrackingError.
    """
    try:
        return _settle(ClientRun(tracking_uri, run_id), state, dict(tags))
    except Missing:
        return Outcome(DELETED)
    except Unavailable as error:
        raise TrackingUnavailable(_untold(run_id, state, error)) from None
    except Refused as error:
        raise TrackingError(
            _untold(run_id, state, error), code=ERROR_CODES.get(type(error)), hint=error.hint
        ) from None


def _settle(run: ClientRun, state: State, tags: dict[str, str]) -> Outcome:
    info = run.get()
    if info.deleted:
        return Outcome(DELETED)
    if is_told(info.status, info.tags):
        return Outcome(ENDED, info.status, info.tags.get(TAG_CAUSE), info.tags.get(TAG_MESSAGE))
    outcome = write_end(run, info, state, tags)
    if outcome.status in ("FAILED", "KILLED"):
        end_children(run, info, outcome, pod=None)
    return outcome


def _untold(run_id: str, state: State, error: Exception) -> str:
    end = describe(str(state.status), state.exit_code, state.cause, None)
    return f"run {run_id} ended {end}, but the end could not be written to MLflow: {error}"
