"""How much is free on the nodes: nodes and pods in, one sentence out."""

from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.cluster.diagnose import cannot_start
from mlflow_backend.cluster.room import most_free, short_of


def node(name, **allocatable):
    return {"metadata": {"name": name}, "status": {"allocatable": allocatable}}


def on(name, *requests):
    return {"spec": {"nodeName": name, "containers": [{"resources": {"requests": request}} for request in requests]}}


def refused(words, requests):
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
    return {"spec": {"containers": [{"resources": {"requests": requests}}]}, "status": {"phase": "Pending", "conditions": [condition]}}


def test_the_node_with_most_free_is_named_for_each_resource():
    nodes = [node("a", cpu="4", memory="8Gi"), node("b", cpu="2", memory="16Gi")]
    pods = [on("a", {"cpu": "3500m"}, {"memory": "1Gi"}), on("b", {"cpu": "250m", "memory": "10Gi"}), on("b")]
    assert most_free(nodes, pods, ["cpu", "memory"]) == "most free on one node: cpu 1.75 of 2 on b, memory 7.0Gi of 8.0Gi on a"


def test_where_pods_may_not_be_listed_the_largest_node_is_named():
    assert most_free([node("a", cpu="4"), node("b", cpu="8")], None, ["cpu", "x.y/gpu"]) == "largest node: cpu 8 on b, x.y/gpu 0 on b"


def test_what_is_short_is_read_from_the_scheduler_s_words_and_said_with_what_was_asked_for():
    pod = refused("0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu.", {"cpu": "8"})
    assert short_of(pod) == ["cpu", "nvidia.com/gpu"]
    message = cannot_start(pod, {}, [], "most free on one node: cpu 2 of 4 on a").diagnosis.message
    assert "2 Insufficient nvidia.com/gpu; most free on one node: cpu 2 of 4 on a. The run asks for cpu 8" in message


@given(st.lists(st.integers(0, 5000), max_size=8), st.integers(1, 4000))
def test_what_is_free_is_never_negative_and_never_more_than_there_is(requests, total):
    said = most_free([node("a", cpu=f"{total}m")], [on("a", {"cpu": f"{request}m"}) for request in requests], ["cpu"])
    free, whole = (float(part) for part in said.removeprefix("most free on one node: cpu ").removesuffix(" on a").split(" of "))
    assert 0 <= free <= whole == total / 1000 and free == max(0, total - sum(requests)) / 1000
