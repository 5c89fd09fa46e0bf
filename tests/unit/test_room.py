"""How much is free on the nodes: nodes and pods in, one sentence out."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.places.kubernetes.diagnose import cannot_start
from mlflow_backend.places.kubernetes.diagnose.room import (
    FRESH_S,
    Taken,
    describe,
    most_free,
    node_of,
    short_of,
    taken_by,
)
from tests.bed.apiserver import listing, refusal


def raw_node(name, **allocatable):
    return {
        "metadata": {"name": name},
        "status": {"allocatable": allocatable, "images": [{"names": ["x"]}]},
    }


def node(name, **allocatable):
    return node_of(raw_node(name, **allocatable))


def containers(*requests):
    return [{"resources": {"requests": request}} for request in requests]


def raw_pod(name, *requests, **spec):
    return {
        "metadata": {"name": "p"},
        "spec": {"nodeName": name, "containers": containers(*requests), **spec},
    }


def on(name, *requests, **spec):
    return taken_by(raw_pod(name, *requests, **spec))


def refused(words, requests):
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": words,
    }
    return {
        "spec": {"containers": [{"name": "run", "resources": {"requests": requests}}]},
        "status": {"phase": "Pending", "conditions": [condition]},
    }


def test_the_node_with_most_free_is_named_for_each_resource():
    nodes = [node("a", cpu="4", memory="8Gi"), node("b", cpu="2", memory="16Gi")]
    pods = [
        on("a", {"cpu": "3500m"}, {"memory": "1Gi"}),
        on("b", {"cpu": "250m", "memory": "10Gi"}),
        on("b"),
    ]
    assert most_free(nodes, pods, ["cpu", "memory"]) == (
        "most free on one node: cpu 1.75 of 2 on b, memory 7.0Gi of 8.0Gi on a"
    )


def test_where_pods_may_not_be_listed_the_largest_node_is_named():
    assert (
        most_free([node("a", cpu="4"), node("b", cpu="8")], None, ["cpu", "x.y/gpu"])
        == "largest node: cpu 8 on b, x.y/gpu 0 on b"
    )


def test_what_is_short_is_read_from_the_scheduler_s_words_and_said_with_what_was_asked_for():
    pod = refused(
        "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu.", {"cpu": "8"}
    )
    assert short_of(pod) == ["cpu", "nvidia.com/gpu"]
    message = cannot_start(pod, {}, [], "most free on one node: cpu 2 of 4 on a").diagnosis.message
    assert (
        "2 Insufficient nvidia.com/gpu; most free on one node: cpu 2 of 4 on a. The run asks for "
        "cpu 8"
    ) in message


@given(st.lists(st.integers(0, 5000), max_size=8), st.integers(1, 4000))
def test_what_is_free_is_never_negative_and_never_more_than_there_is(requests, total):
    said = most_free(
        [node("a", cpu=f"{total}m")],
        [on("a", {"cpu": f"{request}m"}) for request in requests],
        ["cpu"],
    )
    free, whole = (
        float(part)
        for part in said.removeprefix("most free on one node: cpu ")
        .removesuffix(" on a")
        .split(" of ")
    )
    assert 0 <= free <= whole == total / 1000 and free == max(0, total - sum(requests)) / 1000


def test_a_pod_takes_what_the_scheduler_counts_for_it():
    first, sidecar = containers({"cpu": "3"}, {"cpu": "500m", "memory": "1Gi"})
    sidecar["restartPolicy"] = "Always"
    assert on("a", {"cpu": "1"}, {"cpu": "250m"}, initContainers=[first]) == Taken("a", {"cpu": 3})
    assert on("a", {"cpu": "4"}, initContainers=[first, sidecar]) == Taken(
        "a", {"cpu": Decimal("4.5"), "memory": 2**30}
    )
    assert on("a", {"cpu": "1"}, initContainers=[sidecar, first]).requests["cpu"] == Decimal(
        "3.5"
    ), "the sidecar runs already"
    assert on("a", {"cpu": "1"}, overhead={"cpu": "100m"}).requests["cpu"] == Decimal("1.1")
    assert on("a") == Taken("a", {})


def test_nodes_and_pods_are_asked_for_once_a_minute_however_many_runs_wait(api, cluster):
    api.answers["list nodes"] = [listing(raw_node("a", cpu="4"), version="1")]
    api.answers["list pods"] = [
        listing(raw_pod("a", {"cpu": "1"})),
        listing(raw_pod("a", {"cpu": "2"})),
    ]
    waiting = refused("0/1 nodes are available: 1 Insufficient cpu.", {"cpu": "8"})
    now = [0.0]

    def ask():
        return describe(cluster, waiting, lambda: now[0])

    assert describe(cluster, None) == "" and api.calls == []
    assert {ask() for _ in range(20)} == {"most free on one node: cpu 3 of 4 on a"}
    now[0] = FRESH_S - 0.1
    assert ask() == "most free on one node: cpu 3 of 4 on a" and len(api.calls) == 2
    now[0] = FRESH_S
    assert ask() == "most free on one node: cpu 2 of 4 on a" and len(api.calls) == 4


def test_who_may_not_list_nodes_is_not_refused_more_than_once_a_minute(api, cluster):
    api.answers["list nodes"] = [refusal(403)]
    waiting = refused("0/1 nodes are available: 1 Insufficient cpu.", {"cpu": "8"})
    assert {describe(cluster, waiting) for _ in range(20)} == {""} and len(api.calls) == 1
