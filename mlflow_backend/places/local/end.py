"""How a run on this machine ended, and telling it from here where its reporter could not: by the
same rules as the reporter's.
"""

from collections.abc import Callable, Mapping

from mlflow_backend.errors import TrackingError, TrackingUnavailable
from mlflow_runner.contract.answers import Missing, Refused, Unavailable
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import describe, is_told
from mlflow_runner.contract.outcome import DELETED, TOLD, Outcome
from mlflow_runner.contract.state import State
from mlflow_runner.contract.tags import TAG_CAUSE, TAG_MESSAGE
from mlflow_runner.report.children import end_children
from mlflow_runner.report.status import tell_end
from mlflow_runner.tracking.client import ClientRun

WhyNotStarted = Callable[[int, str], str]


def final_state(state: State, code: int, cancelled: bool, why_not_started: str | None) -> State:
    """The state that the runner left, completed where the runner ended before it knew how the run
    ends.

    `code` is that of its process, as Popen gives it; `why_not_started` a sentence for a runner that
    never began.
    """
    if state.status:
        return state
    # what `docker run` returns is as a shell gives it already
    state.exit_code = 128 - code if code < 0 else code
    if cancelled:
        state.status, state.cause, state.message = (
            "KILLED",
            Cause.CANCELLED,
            ("The run was cancelled before its command was started."),
        )
    elif why_not_started and not state.started:
        state.status, state.cause, state.message = (
            "FAILED",
            Cause.ENVIRONMENT_ERROR,
            why_not_started,
        )
    elif code < 0 or code >= 128:
        state.status, state.cause, state.message = (
            "FAILED",
            Cause.RUNNER_LOST,
            ("The runner was killed from outside."),
        )
    else:
        state.status, state.cause = "FAILED", Cause.RUNNER_ERROR
        state.message = (
            f"The runner exited with code {code} before the run's end was known: see its output."
        )
    return state


def settle(run_id: str, tracking_uri: str, state: State, tags: Mapping[str, str]) -> Outcome:
    """Write the end of `state` with this process's own login, `tags` with it, unless an end was
    told already.

    Raises TrackingError.
    """
    try:
        run = ClientRun(tracking_uri, run_id)
        found = run.get()
        if found.deleted:
            return Outcome(DELETED)
        if is_told(found.status, found.tags):
            return Outcome(
                TOLD, found.status, found.tags.get(TAG_CAUSE), found.tags.get(TAG_MESSAGE)
            )
        outcome = tell_end(run, found, state, dict(tags))
        if outcome.status in ("FAILED", "KILLED"):
            end_children(run, found, outcome, pod=None)
        return outcome
    except Missing:
        return Outcome(DELETED)
    except (Unavailable, Refused) as error:
        kind = TrackingUnavailable if isinstance(error, Unavailable) else TrackingError
        ended = describe(str(state.status), state.exit_code, state.cause, None)
        raise kind(f"run {run_id} ended {ended}, but MLflow could not be told: {error}") from None
