"""A transition of a run is several requests, and each may be the last: what stands then is the
earlier state or the new one to every reader.
"""

import json

import pytest

from mlflow_backend.places.kubernetes.settle import judge
from mlflow_backend.supervision.record import RunRecord, has_ended
from mlflow_runner.contract.answers import RunInfo, Unavailable
from mlflow_runner.contract.ending import end_tags
from mlflow_runner.contract.state import State
from mlflow_runner.contract.tags import TAG_CAUSE
from mlflow_runner.report.status import Status
from tests.unit.test_settle import NOW_S, RUNNING, SENT

POD = {"compute.pod": "pod-1"}
NEXT = "Attempt 1 exited with code 75: another attempt follows."
FOUND = {
    "submitted": ("SCHEDULED", {}),
    "running": ("RUNNING", {"compute.pod": "pod-2", "compute.attempt": "2"}),
    "stopped": (
        "KILLED",
        {**POD, **end_tags("KILLED", "Terminated", "The run was stopped by SIGTERM.", 143)},
    ),
    "stopped, and told running half way": (
        "RUNNING",
        {**POD, **end_tags("KILLED", "Terminated", "The run was stopped by SIGTERM.", 143)},
    ),
    "retried": ("SCHEDULED", {**POD, **end_tags("SCHEDULED", None, NEXT, 75)}),
    "marked by the script": ("FAILED", {"compute.pod": "pod-2", "compute.attempt": "2"}),
    "marked by a user": ("KILLED", {"compute.pod": "pod-2", "compute.attempt": "2"}),
    "told by a watcher": (
        "FAILED",
        {**POD, **end_tags("FAILED", "NodeLost", "The node was lost", None)},
    ),
}
WHERE = {"pod": "pod-2", "attempt": 2, "started": True}
TRANSITIONS = {
    "running": State(**WHERE),
    "finished": State(**WHERE, status="FINISHED", exit_code=0),
    "failed": State(
        **WHERE,
        status="FAILED",
        exit_code=3,
        cause="ExitCode",
        message="The command exited with code 3",
    ),
    "stopped": State(
        **WHERE,
        status="KILLED",
        exit_code=143,
        cause="Terminated",
        message="The run was stopped by SIGTERM.",
    ),
    "retried": State(
        **WHERE,
        status="SCHEDULED",
        exit_code=75,
        message="Attempt 2 exited with code 75: another attempt follows.",
    ),
}


class Server:
    """MLflow for one run.

    The request number `fails_at` meets a 503; `stood` holds what stood after each that changed
    something.
    """

    def __init__(self, status, tags, fails_at=None):
        self.status, self.tags, self.fails_at, self.requests, self.stood = (
            status,
            {**SENT, **tags},
            fails_at,
            0,
            [],
        )

    def get(self):
        return RunInfo(self.status, "", dict(self.tags))

    def log(self, tags, metrics):
        self._request()
        self.tags.update(tags)
        self.stood.append(self.known())

    def remove_tags(self, names):
        for name in names:
            self._request()
            del self.tags[name]  # MLflow refuses to remove a tag that is not there
            self.stood.append(self.known())

    def set_status(self, status, ended):
        self._request()
        self.status = status
        self.stood.append(self.known())

    def known(self):
        return RunRecord("r", self.status, dict(self.tags), NOW_S - 60)

    def _request(self):
        self.requests += 1
        if self.requests == self.fails_at:
            raise Unavailable("503")


def tell(directory, server, state):
    """As the reporter does, a new one each time: True when all was told."""
    status = Status(directory, lambda: server)
    try:
        status.write_end(state, {}) if state.status else status.look(state)
    except Unavailable:
        return False
    return True


def read(known):
    """What a reader takes the run for: its end if it has one, and whether a user wants it to end."""
    verdict = judge(known, RUNNING)
    return (
        has_ended(known),
        verdict.end and verdict.end.cause,
        has_ended(known) and known.tags.get(TAG_CAUSE),
    )


NO_END = (False, None, False)
"""Between two ends, of which the later one stands in the end."""


@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.parametrize("found", FOUND)
def test_what_stands_after_each_request_is_read_as_the_earlier_state_or_the_new_one(
    tmp_path, found, transition
):
    server = Server(*FOUND[found])
    before = read(server.known())
    assert tell(tmp_path, server, TRANSITIONS[transition])
    after = read(server.known())
    allowed = [before, NO_END, after]
    readings = [before, *map(read, server.stood)]
    assert set(readings) <= set(allowed), json.dumps(
        [(known.status, known.tags) for known in server.stood], indent=1
    )
    assert readings == sorted(readings, key=allowed.index), (
        "what has been read once is not taken back"
    )


@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.parametrize("found", FOUND)
def test_a_request_that_fails_changes_nothing_once_the_transition_is_told_again(
    tmp_path, found, transition
):
    state, whole = TRANSITIONS[transition], Server(*FOUND[found])
    (tmp_path / "0").mkdir()
    assert tell(tmp_path / "0", whole, state)
    for number in range(1, whole.requests + 1):
        directory = tmp_path / str(number)
        directory.mkdir()
        server = Server(*FOUND[found], fails_at=number)
        assert not tell(directory, server, state)
        assert tell(directory, server, state)
        assert (server.status, server.tags) == (whole.status, whole.tags), f"request {number}"


@pytest.mark.parametrize("transition", sorted(TRANSITIONS.keys() - {"running"}))
def test_a_run_that_ends_while_running_was_told_half_way_ends_as_any_other(tmp_path, transition):
    state, whole = TRANSITIONS[transition], Server("RUNNING", {})
    tell(tmp_path, whole, state)
    for number in range(1, 7):
        directory = tmp_path / str(number)
        directory.mkdir()
        server = Server(*FOUND["stopped"], fails_at=number)
        tell(directory, server, TRANSITIONS["running"])
        server.fails_at = None
        assert tell(directory, server, state)
        assert (server.status, server.tags) == (whole.status, whole.tags), f"request {number}"


def test_a_mark_or_an_end_that_comes_while_an_earlier_end_is_removed_stands(tmp_path):
    """`compute.status` and its like may be anybody's by then: only what was there before goes."""
    for name, (status, tags) in {
        "Cancelled": ("KILLED", end_tags("KILLED", "Cancelled", "", 143)),
        "mark": ("KILLED", {}),
    }.items():
        (tmp_path / name).mkdir()
        server = Server(*FOUND["stopped"], fails_at=3)
        assert (
            not tell(tmp_path / name, server, TRANSITIONS["running"]) and server.status == "RUNNING"
        )
        server.tags.update(tags)
        server.status = status
        tell(tmp_path / name, server, TRANSITIONS["running"])
        verdict = judge(server.known(), RUNNING)
        assert (verdict.ended, (verdict.end.cause if verdict.end else server.tags[TAG_CAUSE])) == (
            True,
            "Cancelled",
        ), name


@pytest.mark.parametrize("transition", ["retried", "stopped"])
def test_a_run_that_a_user_marked_killed_has_no_further_attempt(tmp_path, transition):
    server = Server(*FOUND["marked by a user"])
    assert tell(tmp_path, server, TRANSITIONS[transition])
    assert has_ended(server.known()) and server.tags[TAG_CAUSE] == "Cancelled"
