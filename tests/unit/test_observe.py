"""The shared watch: what it delivers when the API server drops it, which a healthy server cannot be made to do on demand."""

import queue
import threading

import pytest

from mlflow_backend.cluster.observe import Change, Observer
from mlflow_backend.errors import ClusterError


def job(name, uid="1", version="5"):
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": version, "labels": {"mlflow-compute/client": "c"}}, "spec": {}}


def pod(name, of, uid="2", version="6"):
    labels = {"batch.kubernetes.io/job-name": of}
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": version, "labels": labels}, "spec": {}}


class ScriptedCluster:
    """Lists and watches as told, kind by kind; then stays silent. A watch's last entry may be an exception."""

    def __init__(self, lists, watches):
        self._lists, self._watches = lists, watches
        self.asked = []
        self.closing = self._silence = threading.Event()

    def run_beside(self, target, name):
        threading.Thread(target=target, daemon=True, name=name).start()

    def list_objects(self, kind, selector, keep):
        self.asked.append(("list", kind, selector))
        answer = self._lists[kind].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [keep(item) for item in answer[0]], answer[1]

    def watch_objects(self, kind, selector, version, timeout_s):
        self.asked.append(("watch", kind, version))
        if not self._watches.get(kind):
            self._silence.wait()
        for event in self._watches[kind].pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


def event(kind, item):
    return {"type": kind, "object": item}


GONE = event("ERROR", {"code": 410, "reason": "Expired"})


def take(changes, count):
    return [changes.get(timeout=10) for _ in range(count)]


@pytest.mark.parametrize("breaks", [GONE, ClusterError("the connection was reset")])
def test_after_a_broken_watch_everything_is_listed_anew_and_what_is_gone_is_told(breaks):
    first, second = job("a", "1"), job("b", "2")
    cluster = ScriptedCluster({"Job": [([first, second], "7"), ([second], "9")], "Pod": [([], "7")]}, {"Job": [[breaks]]})
    observer = Observer(cluster, "c")
    a, b = observer.subscribe("a"), observer.subscribe("b")
    assert take(a, 2) == [Change("Job", "a", first), Change("Job", "a", None, first)]
    assert take(b, 1) == [Change("Job", "b", second)]
    assert ("list", "Job", "c") in cluster.asked


def test_a_watch_that_ends_by_itself_goes_on_where_it_stopped():
    now = job("a", version="8")
    cluster = ScriptedCluster(
        {"Job": [([], "7")], "Pod": [([], "7")]}, {"Job": [[event("BOOKMARK", job("", version="7b"))], [event("ADDED", now)]]}
    )
    changes = Observer(cluster, "c").subscribe("a")
    assert take(changes, 1) == [Change("Job", "a", now)]
    assert [entry for entry in cluster.asked if entry[:2] == ("watch", "Job")][:2] == [("watch", "Job", "7"), ("watch", "Job", "7b")]


def test_a_server_that_cannot_be_reached_is_asked_again():
    cluster = ScriptedCluster({"Job": [ClusterError("no route"), ([job("a")], "7")], "Pod": [([], "7")]}, {})
    assert take(Observer(cluster, "c").subscribe("a"), 1)[0].value == job("a")


def test_a_pod_is_told_to_who_waits_for_its_job_only_and_known_things_to_who_comes_later():
    mine = pod("a-x", "a")
    cluster = ScriptedCluster({"Job": [([], "1")], "Pod": [([mine], "1")]}, {})
    observer = Observer(cluster, "c")
    a, b = observer.subscribe("a"), observer.subscribe("b")
    assert take(a, 1) == [Change("Pod", "a-x", mine)]
    assert take(observer.subscribe("a"), 1) == [Change("Pod", "a-x", mine)]
    with pytest.raises(queue.Empty):
        b.get(timeout=0.2)
    assert [entry[0] for entry in cluster.asked].count("list") == 2, "one list of pods, one of Jobs, however many wait"
