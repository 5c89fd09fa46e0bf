"""Objects that a real API server sent (tests/unit/data/objects.json, recorded during the fault
suite), combined and damaged: what optional fields are missing or what users wrote into them, a
diagnosis comes out and never an exception.
"""

import copy
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.places.kubernetes import diagnose
from mlflow_backend.places.kubernetes.look import Observation
from mlflow_backend.places.kubernetes.ownership import Claim
from mlflow_backend.places.kubernetes.settle import foresee
from mlflow_backend.timestamps import seconds
from mlflow_runner.contract.causes import Cause

RECORDED = json.loads((Path(__file__).parent / "data/objects.json").read_text())
JOBS = [item for item in RECORDED["objects"] if item["kind"] == "Job"]
PODS = [item for item in RECORDED["objects"] if item["kind"] == "Pod"]
REQUIRED = {"name", "uid", "creationTimestamp", "type", "status", "metadata", "state", "kind"}
"""What the API always sends, or what gives its neighbours their meaning."""
CLOCK_S = st.floats(seconds("2026-01-01T00:00:00Z"), seconds("2027-12-31T00:00:00Z"))


def paths(value, path=()):
    """The path of every optional field below `value`."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in REQUIRED:
                yield (*path, key)
            yield from paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from paths(item, (*path, index))


@st.composite
def damaged(draw, items):
    """One of the objects without some of its optional fields, and with any text where users may
    write.
    """
    item = copy.deepcopy(draw(st.sampled_from(items)))
    for path in draw(st.lists(st.sampled_from(list(paths(item))), max_size=4)):
        parent = item
        try:
            for part in path[:-1]:
                parent = parent[part]
            del parent[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # it went with a larger part
    for status in item.get("status", {}).get("containerStatuses") or ():
        if ended := (status.get("state") or {}).get("terminated"):
            ended["message"] = draw(st.text(max_size=20) | st.just(ended.get("message", "")))
    notes = item["metadata"].setdefault("annotations", {})
    notes["mlflow-compute/start-timeout"] = draw(st.sampled_from(["5", "1e9", "0"]))
    notes["batch.kubernetes.io/job-index-failure-count"] = draw(st.sampled_from(["0", "1", "x"]))
    return item


@given(job=st.none() | st.just({}) | damaged(JOBS), pod=st.none() | damaged(PODS),
       events=st.lists(damaged([{"metadata": {}, **event} for event in RECORDED["events"]]), max_size=5), now_s=CLOCK_S)  # fmt: skip
def test_a_diagnosis_comes_out_and_never_an_exception(job, pod, events, now_s):
    verdict = foresee(Observation(job, pod, events, now_s, claim=Claim("j", "u", "c")))
    assert verdict.look_again_s is None or verdict.look_again_s >= 0
    if verdict.end:
        assert verdict.end.status in ("FINISHED", "FAILED", "KILLED") and verdict.end.cause in (
            None,
            *Cause,
        )
        assert (verdict.end.cause is None) == (
            verdict.end.status == "FINISHED"
        ) and "\n" not in verdict.end.message
    if pod is not None and job is not None:
        assert diagnose.waiting_for(pod, job, events, "", now_s).isprintable()
