"""Waiting for the pods of a deleted Job."""

import pytest

from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes.client.gone import PAUSE_S, pods_are_gone
from tests.bed.apiserver import Answer, listing, refusal
from tests.unit.test_observe import pod as pod_of


def pod(name, of, uid="2"):
    return pod_of(name, of, uid, f"uid-of-{of}")


class Clock:
    """The time: it passes by what the cluster's calls sleep."""

    def __init__(self, cluster):
        self._slept = cluster.slept

    def __call__(self):
        return sum(self._slept)


def gone(cluster, timeout_s=5):
    return pods_are_gone(cluster, "run=r", "uid-of-a", timeout_s, Clock(cluster))


def deleted(item):
    return {"type": "DELETED", "object": item}


def test_nothing_is_watched_when_there_is_no_pod_of_the_job(api, cluster):
    api.answers["list pods"] = [
        listing(pod("b-x", "b"), {"metadata": {"name": "stray", "uid": "9"}})
    ]
    assert gone(cluster) and api.count("watch pods") == 0


def test_the_last_pod_that_goes_ends_the_wait(api, cluster):
    first, second, other = pod("a-x", "a", "1"), pod("a-y", "a", "2"), pod("b-x", "b", "3")
    api.answers["list pods"] = [listing(first, second, other, version="7")]
    api.answers["watch pods"] = [
        Answer(
            stream=[
                deleted(other),
                deleted(first),
                {"type": "MODIFIED", "object": second},
                deleted(second),
            ]
        )
    ]
    assert gone(cluster) and cluster.slept == []
    assert (
        api.calls[-1].query["resourceVersion"] == "7"
        and api.calls[-1].query["labelSelector"] == "run=r"
    )


def test_a_pod_of_another_job_of_the_same_name_is_not_waited_for(api, cluster):
    api.answers["list pods"] = [listing(pod_of("a-x", "a", job_uid="of-the-next"))]
    assert gone(cluster) and api.count("watch pods") == 0


@pytest.mark.parametrize("stream", [[], [{"type": "ERROR", "object": {"code": 410}}]])
def test_a_watch_that_ends_at_once_is_asked_for_once_a_second_until_the_time_is_over(
    api, cluster, stream
):
    api.answers["list pods"] = [listing(pod("a-x", "a"))]
    api.answers["watch pods"] = [Answer(stream=stream)]
    assert not gone(cluster, 5)
    assert api.count("watch pods") == 5 and cluster.slept == [PAUSE_S] * 5


def test_a_refusal_is_raised(api, cluster):
    api.answers["list pods"] = [refusal(403)]
    with pytest.raises(ClusterError):
        gone(cluster)
