"""The controller's calls to MLflow stand any answer: each is a run, no run, or an outage in one
sentence.
"""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_backend.controller.runs import UNLIKE, ServerRuns, _record_of
from mlflow_backend.supervision.record import RunRecord
from mlflow_runner.contract.answers import Unavailable
from tests.bed.odd import OddServer

RUN = {
    "info": {
        "run_id": "r",
        "experiment_id": "7",
        "status": "RUNNING",
        "start_time": 2000,
        "lifecycle_stage": "active",
    },
    "data": {"tags": [{"key": "compute.job", "value": "j"}]},
}
MINE = RunRecord("r", "RUNNING", {"compute.job": "j"}, 2.0, "7")
SEARCHES = {
    "stopped": ("runs/search", lambda runs: list(runs.stopped([MINE]))),
    "unfinished": ("experiments/search", lambda runs: list(runs.unfinished("uid"))),
}


def with_value(path, value):
    """A copy of RUN with another value at `path`."""
    run = json.loads(json.dumps(RUN))
    place = run
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return run


def test_a_run_is_read_as_the_api_gives_it():
    with OddServer(json.dumps({"run": RUN}).encode()) as server:
        assert ServerRuns(server.uri).read("r") == MINE
    assert _record_of(with_value(["info", "lifecycle_stage"], "deleted")).is_deleted


@pytest.mark.parametrize(
    "answer",
    [[], {}, 5, None, {"run": None}, {"run": []}, {"run": {}}, {"run": {"info": None, "data": {}}}]
    + [
        {"run": with_value(["info", name], value)}
        for name in ("run_id", "status", "experiment_id")
        for value in (None, 5, [])
    ]
    + [
        {"run": with_value(["info", "start_time"], value)}
        for value in ("soon", [], {}, float("inf"))
    ]
    + [
        {"run": with_value(["data"], value)}
        for value in (None, [], 5, {"tags": 5}, {"tags": [5]}, {"tags": [{"key": "a", "value": 5}]})
    ]
    + [{"run": with_value(["info", "start_time"], 10**400)}],
    ids=lambda answer: str(answer)[:80],
)
def test_what_is_no_answer_to_a_read_is_an_outage(answer):
    with OddServer(json.dumps(answer).encode()) as server, pytest.raises(Unavailable):
        ServerRuns(server.uri).read("r")


def test_the_answer_for_another_run_is_named():
    with (
        OddServer(json.dumps({"run": RUN}).encode()) as server,
        pytest.raises(Unavailable) as caught,
    ):
        ServerRuns(server.uri).read("s")
    assert str(caught.value) == f"GET runs/get: run r instead of s: {UNLIKE}"


@pytest.mark.parametrize(
    "body", [b"<html>Sign in</html>", b"\xff\xfe", b"[" * 100_000], ids=["html", "bytes", "deep"]
)
@pytest.mark.parametrize(
    "call",
    [lambda runs: runs.read("r"), *(call for _, call in SEARCHES.values())],
    ids=["read", *SEARCHES],
)
def test_what_is_no_json_is_an_outage(body, call):
    with OddServer(body) as server, pytest.raises(Unavailable):
        call(ServerRuns(server.uri))


@pytest.mark.parametrize("answer", [[], 5, None, {"runs": 5, "experiments": 5}, {"runs": [5], "experiments": [5]},
                                    {"runs": [{}], "experiments": [{}]}, {"runs": {}, "experiments": {}, "next_page_token": "t"}], ids=str)  # fmt: skip
@pytest.mark.parametrize("search", SEARCHES)
def test_what_is_no_answer_to_a_search_is_an_outage(search, answer):
    endpoint, call = SEARCHES[search]
    with OddServer(json.dumps(answer).encode()) as server, pytest.raises(Unavailable):
        call(ServerRuns(server.uri))
    assert set(server.asked) == {f"/api/2.0/mlflow/{endpoint}"}


@pytest.mark.parametrize("search", SEARCHES)
def test_a_server_that_gives_the_same_page_for_ever_is_asked_twice(search):
    endpoint, call = SEARCHES[search]
    with OddServer(b'{"next_page_token": "same"}') as server, pytest.raises(Unavailable):
        call(ServerRuns(server.uri))
    assert server.asked == [f"/api/2.0/mlflow/{endpoint}"] * 2


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.sampled_from(
    ["info", "data", "tags", "key", "value", "run_id", "status", "experiment_id", "start_time", "lifecycle_stage"]), of)))  # fmt: skip
def test_any_json_is_a_run_or_an_outage(answer):
    try:
        known = _record_of(answer)
    except Unavailable:
        return
    assert all(
        isinstance(text, str)
        for text in (
            known.run_id,
            known.status,
            known.experiment_id,
            *known.tags,
            *known.tags.values(),
        )
    )
