"""Several pods of one run, several runs of one Job: which pod speaks, which one decides."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.places.kubernetes.look import Observation
from mlflow_backend.places.kubernetes.members import by_index, deciding, member_of, topology_of
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.places.kubernetes.ownership import Claim, claim_of, is_part_of
from mlflow_backend.places.kubernetes.settle import foresee
from mlflow_backend.supervision.record import RunRecord
from mlflow_runner.contract.answers import RunInfo
from mlflow_runner.contract.ending import ending, speaks_for
from mlflow_runner.contract.state import State
from mlflow_runner.contract.tags import TAG_ATTEMPT, TAG_INDEX
from mlflow_runner.contract.topology import ARRAY, NODES, SINGLE, Member, Topology, number
from tests.unit.test_diagnose import terminated
from tests.unit.test_settle import NOW_S, SENT

INDEXES = st.integers(0, 5)
ATTEMPTS = st.integers(1, 4)
MEMBERS = st.builds(Member, INDEXES, ATTEMPTS)
TOPOLOGIES = st.builds(Topology, st.sampled_from([SINGLE, NODES, ARRAY]), st.integers(1, 5000))
JOB = {"metadata": {"name": "j", "uid": "u", "annotations": {labels.TOPOLOGY: "nodes/3"}}}
FAILED_JOB = {
    **JOB,
    "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}]},
}


def pod(index, attempt=1, phase="Running", code=None, ended="2026-01-01T00:00:30Z", reason="Error"):
    state = {"running": {}}
    if code is not None:
        state = terminated(code, reason)
        state["terminated"]["finishedAt"] = ended
    return {
        "metadata": {
            "name": f"j-{index}-{attempt}",
            "uid": f"p{index}{attempt}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"kind": "Job", "uid": "u"}],
            "annotations": {
                "batch.kubernetes.io/job-completion-index": str(index),
                "batch.kubernetes.io/job-index-failure-count": str(attempt - 1),
            },
        },
        "spec": {"containers": [{"name": "run", "image": "runner:1"}]},
        "status": {
            "phase": phase,
            "containerStatuses": [] if phase == "Pending" else [{"name": "run", "state": state}],
        },
    }


def seen(job, pods):
    return Observation(job, deciding(pods), (), NOW_S, claim=Claim("j", "u", "c"))


@given(TOPOLOGIES)
def test_a_topology_read_back_is_the_one_written(topology):
    assert Topology.parse(str(topology)) == topology


@given(st.text(max_size=12))
def test_any_other_text_is_no_topology(text):
    try:
        assert str(Topology.parse(text)).partition("/")[0] == text.partition("/")[0]
    except ValueError:
        assert topology_of({"metadata": {"annotations": {labels.TOPOLOGY: text}}}) == Topology()


@given(st.text(max_size=12))
def test_a_number_that_anyone_may_have_written_breaks_nothing(text):
    assert 0 <= number(text, 7) < 10**9


@given(MEMBERS, MEMBERS)
def test_attempts_compare_only_within_an_index(one, other):
    assert one.replaces(other) == (one.rank == other.rank and one.attempt > other.attempt)
    assert not (one.replaces(other) and other.replaces(one))


@pytest.mark.parametrize(
    ("topology", "speakers", "folders"),
    [
        (Topology(), [True], ["logs"]),
        (Topology(NODES, 3), [True, False, False], ["logs/node-0", "logs/node-1", "logs/node-2"]),
        (Topology(ARRAY, 2), [True, True], ["logs", "logs"]),
    ],
)
def test_of_several_nodes_one_tells_the_status_and_each_has_a_log(topology, speakers, folders):
    indexes = range(topology.size)
    assert [topology.reports(index) for index in indexes] == speakers
    assert [topology.log_folder(index) for index in indexes] == folders


@given(MEMBERS, st.booleans(), st.none() | INDEXES, ATTEMPTS)
def test_a_pod_speaks_for_a_run_unless_a_later_attempt_at_its_index_does(
    member, speaks, index, attempt
):
    tags = {TAG_ATTEMPT: str(attempt), **({} if index is None else {TAG_INDEX: str(index)})}
    state = State(attempt=member.attempt, index=member.rank, speaks=speaks, status="FINISHED")
    found = RunInfo("RUNNING", "", tags)
    is_speaker = speaks and index in (None, member.rank) and attempt <= member.attempt
    assert speaks_for(found, state) == is_speaker
    assert (ending(found, state) is not None) == is_speaker


@given(st.lists(MEMBERS, max_size=8, unique=True), st.randoms())
def test_which_pods_count_does_not_depend_on_their_order(members, random):
    pods = [pod(*member) for member in members]
    shuffled = random.sample(pods, len(pods))
    assert by_index(pods) == by_index(shuffled) and deciding(pods) == deciding(shuffled)
    for index, item in by_index(pods).items():
        latest = max(member for member in members if member.rank == index)
        assert member_of(item) == latest


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_the_node_that_failed_first_decides_and_not_its_victims(order):
    pods = [
        pod(0, phase="Failed", code=143, ended="2026-01-01T00:00:40Z"),
        pod(1, phase="Failed", code=137, ended="2026-01-01T00:00:30Z", reason="OOMKilled"),
        pod(2),
    ]
    verdict = foresee(seen(FAILED_JOB, [pods[number] for number in order]))
    assert verdict.end and verdict.end.cause == "OOMKilled"
    assert verdict.end.message.startswith("node 1 of 3: ")


def test_a_run_of_several_nodes_waits_for_the_one_that_has_not_started():
    assert deciding([pod(0), pod(1, phase="Pending"), pod(2)]) == pod(1, phase="Pending")


def test_a_node_that_has_finished_does_not_end_the_run_of_the_others():
    finished = pod(0, phase="Succeeded", code=0, reason="Completed")
    alone = {"metadata": {"name": "j", "uid": "u"}}
    assert foresee(seen(alone, [finished])).end.status == "FINISHED"
    assert not foresee(seen(JOB, [finished, pod(1)])).ended
    complete = {**JOB, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    assert foresee(seen(complete, [finished])).end.status == "FINISHED"


@given(st.none() | INDEXES, INDEXES)
def test_a_run_of_an_array_sees_the_pods_of_its_index_only(own, index):
    tags = {**SENT, **({} if own is None else {TAG_INDEX: str(own)})}
    claim = claim_of(RunRecord("r", "RUNNING", tags, NOW_S))
    assert claim == Claim("j", "u", "c", own)
    assert is_part_of(claim, pod(index)) == (own in (None, index))
    assert not is_part_of(claim._replace(job_uid="other"), pod(index))
