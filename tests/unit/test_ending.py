"""What becomes of a run at its end, however often it is written, and how the end is put into words."""

import json

from hypothesis import given
from hypothesis import strategies as st

from mlflow_runner.contract.answers import RunInfo
from mlflow_runner.contract.ending import TERMINAL, end_tags, ending, speaks_for
from mlflow_runner.contract.outcome import ENDED, Outcome
from mlflow_runner.contract.state import State
from mlflow_runner.contract.tags import TAG_ATTEMPT, TAG_CAUSE, TAG_EXIT_CODE, TAG_MESSAGE
from mlflow_runner.run.termination import MOST_BYTES, format_message

STATES = st.sampled_from([
    State(status="FINISHED", exit_code=0),
    State(status="FAILED", exit_code=3, cause="ExitCode", message="The command exited with code 3."),
    State(status="KILLED", exit_code=143, cause="Cancelled", message="The run was stopped by "
                                                                     "SIGTERM."),
])  # fmt: skip


@given(STATES, st.sampled_from(["RUNNING", "SCHEDULED", *TERMINAL]))
def test_an_end_that_is_written_again_after_half_of_it_or_all_of_it_stays_the_same(state, marked):
    """`marked` is what the script, or a user in MLflow's UI, has set the status to."""
    first = ending(RunInfo(marked, "", {}), state)
    half, whole = RunInfo(marked, "", first.tags), RunInfo(first.status, "", first.tags)
    for found in (half, whole):
        again = ending(found, state)
        assert again.status == first.status
        assert {**first.tags, **again.tags} == first.tags and not set(again.remove) & set(
            first.tags
        )


@given(STATES, st.sampled_from(["RUNNING", "SCHEDULED", *TERMINAL]))
def test_a_cancel_stands_though_a_runner_that_had_just_started_wrote_running_after_it(
    state, status
):
    told = end_tags("KILLED", "Cancelled", "The run was cancelled.", None)
    for stopped in (
        state,
        State(
            status="KILLED",
            exit_code=143,
            cause="Terminated",
            message="The run was stopped by SIGTERM.",
        ),
    ):
        end = ending(RunInfo(status, "", told), stopped)
        assert end.status == "KILLED" and not end.remove
        assert {**told, **end.tags} == {**told, TAG_EXIT_CODE: str(stopped.exit_code)}


def test_a_script_that_marks_its_run_failed_and_exits_with_0_has_failed():
    end = ending(RunInfo("FAILED", "", {}), State(status="FINISHED", exit_code=0))
    message = "The command exited with code 0, but the script marked the run FAILED."
    assert end.status == "FAILED" and end.tags == end_tags("FAILED", "MarkedFailed", message, 0)


def test_a_run_marked_killed_whose_command_exits_with_0_is_cancelled():
    end = ending(RunInfo("KILLED", "", {}), State(status="FINISHED", exit_code=0))
    assert (end.status, end.tags[TAG_CAUSE]) == ("KILLED", "Cancelled")


@given(st.text(max_size=5))
def test_a_tag_that_anybody_may_have_written_breaks_nothing(attempt):
    assert speaks_for(RunInfo("RUNNING", "", {TAG_ATTEMPT: attempt}), State(attempt=10**9))


@given(st.text(st.characters(), min_size=1, max_size=50))
def test_a_message_is_stored_by_every_database(text):
    stored = end_tags("FAILED", "ExitCode", text, 1).get(TAG_MESSAGE, "")
    assert "\0" not in stored and stored.encode().decode() == stored


@given(st.text(max_size=6000))
def test_a_termination_message_is_whole_json_within_the_kubelets_limit(text):
    written = format_message(Outcome(ENDED, "FAILED", "ExitCode", text), 3, reported=False)
    told = json.loads(written)
    assert len(written.encode()) <= MOST_BYTES and text.startswith(told.pop("message"))
    assert told == {"status": "FAILED", "exit_code": 3, "cause": "ExitCode", "reported": False}
