"""One list and watch: how often it asks a server that is in trouble, and what it delivers
meanwhile.
"""

import pytest

from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes.client.reflector import (
    LIVED_S,
    MAX_BACKOFF_S,
    JobRef,
    Reflector,
    job_of,
)
from mlflow_backend.places.kubernetes.client.streams import Stop
from tests.bed.apiserver import Answer, listing, refusal

ROUNDS = 8


class Enough(Stop):
    """Notes each delay instead of waiting, and is set after as many as a test wants."""

    def __init__(self, rounds=ROUNDS):
        super().__init__()
        self.delays, self._rounds = [], rounds

    def wait(self, timeout_s=None):
        self.delays.append(timeout_s)
        if len(self.delays) == self._rounds:
            self.set()
        return self.is_set()


class Clock:
    """The time, which passes by `step` seconds at each look."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def job(name="a", uid="1", version="5"):
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": version}, "spec": {}}


def event(kind, item):
    return {"type": kind, "object": item}


def follow(cluster, stop, step=0.0, **keywords):
    delivered = []
    Reflector(
        cluster,
        "Job",
        "x=y",
        lambda *change: delivered.append(change),
        stop=stop,
        clock=Clock(step),
        **keywords,
    ).follow()
    return delivered


def grows(delays):
    assert all(
        min(2**number, MAX_BACKOFF_S) <= delay <= min(2**number, MAX_BACKOFF_S) + 1
        for number, delay in enumerate(delays)
    )


FAILING_WATCHES = {
    "closes at once": Answer(stream=[]),
    "closes after an event": Answer(stream=[event("MODIFIED", job())]),
    "is refused for now": refusal(503),
    "is cut": Answer(cut=True),
    "has expired": Answer(
        stream=[event("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})]
    ),
    "sends no JSON": Answer(stream=[b"<html>\n"]),
    "sends no events": Answer(stream=[{"kind": "Status"}]),
    "stops within an event": Answer(stream=[b'{"type": "ADD']),
}


@pytest.mark.parametrize("answer", FAILING_WATCHES.values(), ids=FAILING_WATCHES.keys())
def test_a_watch_that_fails_or_ends_at_once_is_asked_for_less_and_less_often(api, cluster, answer):
    api.answers["list jobs"] = [listing()]
    api.answers["watch jobs"] = [answer]
    stop = Enough()
    follow(cluster, stop)
    assert (
        api.count("watch jobs") == ROUNDS * (2 if answer.cut else 1)
        and api.count("list jobs") <= ROUNDS
    )
    grows(stop.delays)


def test_a_list_that_fails_is_asked_for_less_and_less_often_and_each_failure_is_told(api, cluster):
    api.answers["list jobs"] = [refusal(503, "later")]
    stop, told = Enough(), []
    follow(cluster, stop, failed=lambda kind, error: told.append((kind, str(error))))
    assert (
        api.count("list jobs") == ROUNDS
        and told == [("Job", "context test, namespace n: cannot list Jobs: later")] * ROUNDS
    )
    grows(stop.delays)


def test_only_a_watch_that_lived_ends_the_back_off(api, cluster):
    api.answers["list jobs"] = [listing()]
    api.answers["watch jobs"] = [Answer(stream=[])]
    stop = Enough(4)
    follow(cluster, stop, step=LIVED_S - 1)
    assert stop.delays[-1] >= 8
    calls, stop = api.count("watch jobs"), Enough()
    api.answers["watch jobs"] = [Answer(stream=[])] * 5 + [refusal(403)]
    with pytest.raises(ClusterError):
        follow(cluster, stop, step=LIVED_S + 1, died=_raise)
    assert api.count("watch jobs") == calls + 6 and stop.delays == []


def _raise(error):
    raise error


@pytest.mark.parametrize("what", ["list jobs", "watch jobs"])
def test_a_refusal_for_good_is_told_once_and_never_repeated(api, cluster, what):
    api.answers["list jobs"] = [listing()]
    api.answers[what] = [refusal(403, "jobs is forbidden")]
    died, stop = [], Enough()
    follow(cluster, stop, died=died.append)
    assert [type(error) for error in died] == [ClusterError]
    assert str(died[0]) == (
        f"context test, namespace n: cannot {what.split()[0]} Jobs: jobs is forbidden"
    )
    assert api.count(what) == 1 and stop.delays == []


def test_a_controller_s_watch_outlives_a_refusal_and_asks_less_and_less_often(api, cluster):
    api.answers["list jobs"] = [refusal(403)]
    stop = Enough()
    follow(cluster, stop)
    assert api.count("list jobs") == ROUNDS
    grows(stop.delays)


def test_a_defect_is_told_and_without_anyone_to_tell_ends_the_thread(api, cluster):
    api.answers["list jobs"] = [listing({"metadata": {}})]
    died = []
    follow(cluster, Enough(), died=died.append)
    assert [type(error) for error in died] == [KeyError]
    with pytest.raises(KeyError):
        follow(cluster, Enough())


def test_a_watch_that_ends_in_order_goes_on_where_it_stopped_and_one_that_broke_begins_again(
    api, cluster
):
    first, second = job(version="3"), job("b", "2")
    api.answers["list jobs"] = [listing(first, second, version="2"), listing(second, version="9")]
    api.answers["watch jobs"] = [
        Answer(stream=[event("BOOKMARK", job(version="4"))]),
        Answer(stream=[event("MODIFIED", job(version="6")), event("ERROR", {"code": 410})]),
        Answer(stream=[event("DELETED", second)]),
    ]
    delivered = follow(cluster, Enough(3))
    assert [call.query["resourceVersion"] for call in api.calls if call.what == "watch jobs"] == [
        "2",
        "4",
        "9",
    ]
    assert [(kind, change, item["metadata"]["name"]) for kind, change, item in delivered] == [
        ("Job", "ADDED", "a"), ("Job", "ADDED", "b"), ("Job", "MODIFIED", "a"),
        ("Job", "DELETED", "a"), ("Job", "ADDED", "b"), ("Job", "DELETED", "b"),
    ]  # fmt: skip


def test_another_selection_ends_the_watch_and_lists_at_once(api, cluster):
    api.answers["list jobs"] = [listing(job(), version="1"), listing(job("b", "2"), version="2")]
    stop, delivered = Enough(1), []
    reflector = Reflector(
        cluster,
        "Job",
        "x in (a)",
        lambda kind, change, item: delivered.append((change, item["metadata"]["name"])),
        stop=stop,
    )
    thread = cluster.start_thread(reflector.follow, "follow")
    api.until(lambda: api.watching == 1)
    reflector.select("x in (a,b)")
    api.until(lambda: api.count("watch jobs") == 2 and api.watching == 1)
    assert [call.query["labelSelector"] for call in api.calls] == ["x in (a)"] * 2 + [
        "x in (a,b)"
    ] * 2
    assert delivered == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "b")] and stop.delays == []
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("owners", "found"),
    [
        (
            [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": "j",
                    "uid": "1",
                    "controller": True,
                }
            ],
            JobRef("j", "1"),
        ),
        (
            [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": "j",
                    "uid": "1",
                    "controller": True,
                }
            ],
            None,
        ),
        (
            [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": "j",
                    "uid": "1",
                    "controller": False,
                }
            ],
            None,
        ),
        ([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "1"}], None),
        (
            [
                {
                    "apiVersion": "example.com/v1",
                    "kind": "Job",
                    "name": "j",
                    "uid": "1",
                    "controller": True,
                }
            ],
            None,
        ),
        (None, None),
    ],
)
def test_a_pod_is_of_the_job_that_controls_it_whatever_its_labels_say(owners, found):
    labels = {"batch.kubernetes.io/job-name": "other", "job-name": "other"}
    assert (
        job_of(
            "Pod",
            {"metadata": {"name": "p", "uid": "2", "labels": labels, "ownerReferences": owners}},
        )
        == found
    )
