"""How a run on this machine ended, where its runner did not live to say it."""

import pytest

from mlflow_backend.places.local.end import final_state
from mlflow_runner.contract.state import State


@pytest.mark.parametrize(("started", "code", "cancelled", "why", "end"), [
    (False, -15, True, None, ("KILLED", "Cancelled", 143)),
    (True, -9, False, None, ("FAILED", "RunnerLost", 137)),
    # as `docker run` gives it
    (True, 137, False, "unused: it began", ("FAILED", "RunnerLost", 137)),
    (False, 127, False, "no python3", ("FAILED", "EnvironmentError", 127)),
    (False, 125, True, "no python3", ("KILLED", "Cancelled", 125)),
    (False, 1, False, None, ("FAILED", "RunnerError", 1)),
    (False, 0, False, None, ("FAILED", "RunnerError", 0)),
])  # fmt: skip
def test_a_runner_that_left_no_end_gives_one_with_a_cause(started, code, cancelled, why, end):
    state = final_state(State(started=started), code, cancelled, why)
    assert (state.status, state.cause, state.exit_code) == end and state.message


def test_the_end_that_the_runner_knew_stands_whatever_its_process_came_to():
    state = State(started=True, status="FINISHED", exit_code=0)
    assert final_state(state, -15, True, "why") is state and (state.status, state.exit_code) == (
        "FINISHED",
        0,
    )
