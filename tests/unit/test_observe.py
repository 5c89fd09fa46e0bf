"""The shared watches: what each waiter gets, and when they begin, change and end."""

import queue
import threading

import pytest

from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes.client.connect import connect
from mlflow_backend.places.kubernetes.client.observe import VALUES, Change, Observer
from tests.bed.apiserver import Answer, listing, refusal, write_kubeconfig


def job(name, uid="1"):
    return {
        "metadata": {"name": name, "uid": uid, "resourceVersion": "5", "labels": {}},
        "spec": {},
    }


def pod(name, of, uid="2", job_uid="1"):
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": of,
        "uid": job_uid,
        "controller": True,
    }
    return {
        "metadata": {"name": name, "uid": uid, "resourceVersion": "6", "ownerReferences": [owner]},
        "spec": {},
    }


def take(changes, count):
    return [changes.get(timeout=20) for _ in range(count)]


def watches():
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("watch-") and thread.is_alive()
    ]


@pytest.fixture
def empty(api):
    api.answers["list jobs"] = api.answers["list pods"] = [listing()]


@pytest.fixture
def jobs(api, empty):
    """Jobs a and b and a pod of a, told by the first list."""
    api.answers["list jobs"] = [listing(job("a"), job("b", "9"))]
    api.answers["list pods"] = [
        listing(
            pod("a-x", "a"),
            {"metadata": {"name": "stray", "uid": "7", "resourceVersion": "1"}, "spec": {}},
        )
    ]


def test_each_waiter_gets_its_own_job_and_pods_and_who_comes_later_what_is_known(
    api, cluster, jobs
):
    observer = Observer(cluster, "client", "c")
    a, b = observer.subscribe("a"), observer.subscribe("b")
    assert sorted(take(a, 2), key=lambda change: change.kind) == [
        Change("Job", "a", job("a")),
        Change("Pod", "a-x", pod("a-x", "a")),
    ]
    assert take(b, 1) == [Change("Job", "b", job("b", "9"))]
    later = take(observer.subscribe("a"), 2)
    assert sorted(later, key=lambda change: change.kind) == [
        Change("Job", "a", job("a")),
        Change("Pod", "a-x", pod("a-x", "a")),
    ]
    with pytest.raises(queue.Empty):
        b.get_nowait()
    assert (api.count("list pods"), api.count("list jobs")) == (1, 1), "however many wait"


def test_what_is_gone_is_told_with_how_it_was(api, cluster, jobs):
    api.answers["watch jobs"] = [Answer(stream=[{"type": "DELETED", "object": job("a")}])]
    api.answers["list pods"] = [listing()]
    assert take(Observer(cluster, "client", "c").subscribe("a"), 2)[1] == Change(
        "Job", "a", None, job("a")
    )


@pytest.mark.parametrize("label", ["run", "client"])
def test_fifty_runs_are_watched_by_two_threads_and_none_remains_after_the_last(
    api, cluster, empty, label
):
    observers = [Observer(cluster, label, f"value-{number}") for number in range(50)]
    waiting = [
        (observer, observer.subscribe(f"job-{number}")) for number, observer in enumerate(observers)
    ]
    assert len(watches()) == 2
    wanted = ",".join(sorted(observer.value for observer in observers))
    api.until(
        lambda: (
            {call.query["labelSelector"] for call in api.calls[-2:]} == {f"{label} in ({wanted})"}
            and api.watching == 2
        )
    )
    threads = watches()
    for number, (observer, changes) in enumerate(waiting):
        assert watches() == threads
        observer.unsubscribe(f"job-{number}", changes)
    api.until(lambda: api.watching == 0)
    for thread in threads:
        thread.join(10)
    assert watches() == []


def test_watches_begin_again_for_who_comes_after_the_last_has_left(api, cluster, jobs):
    observer = Observer(cluster, "client", "c")
    for _ in range(3):
        changes = observer.subscribe("b")
        assert take(changes, 1) == [Change("Job", "b", job("b", "9"))]
        observer.unsubscribe("b", changes)
    api.until(lambda: api.watching == 0)


def test_the_same_value_again_lists_nothing_anew_and_more_values_than_fit_select_all_that_have_the_label(
    api, cluster, empty
):
    observer = Observer(cluster, "run", "same")
    for number in range(3):
        observer.subscribe(f"job-{number}")
    api.until(lambda: api.watching == 2)
    assert {call.query["labelSelector"] for call in api.calls} == {"run in (same)"} and api.count(
        "list pods"
    ) == 1
    for number in range(VALUES):
        Observer(cluster, "run", str(number)).subscribe("x")
    api.until(
        lambda: (
            api.watching == 2
            and {call.query["labelSelector"] for call in api.calls[-2:]} == {"run"}
        )
    )


@pytest.mark.parametrize("what", ["list pods", "watch pods", "list jobs", "watch jobs"])
def test_a_watch_that_is_forbidden_fails_all_waiters_once_and_the_next_one_tries_again(
    api, cluster, empty, what
):
    all_wait = threading.Event()
    api.answers[what] = [lambda call: refusal(403, "no") if all_wait.wait(20) else None]
    observer = Observer(cluster, "client", "c")
    waiting = [observer.subscribe(name) for name in ("a", "a", "b")]
    all_wait.set()
    for changes in waiting:
        (change,) = take(changes, 1)
        assert change[:2] == ("Error", "") and type(change.value) is ClusterError
    api.until(lambda: api.watching == 0)
    assert api.count(what) == 1 and all(changes.empty() for changes in waiting)
    assert take(observer.subscribe("a"), 1)[0].kind == "Error" and api.count(what) == 2


def test_a_defect_in_a_watch_fails_all_waiters(api, cluster, empty):
    api.answers["list pods"] = [listing({"spec": {}})]
    (change,) = take(Observer(cluster, "client", "c").subscribe("a"), 1)
    assert change[:2] == ("Error", "") and isinstance(change.value, KeyError)


def test_a_kubeconfig_that_is_written_again_adds_no_watch(api, kubeconfig, empty):
    clusters = []
    for number in range(5):
        write_kubeconfig(kubeconfig, user={"token": str(number)}, server=api.url)
        clusters.append(connect())
        Observer(clusters[-1], "client", "c").subscribe(f"job-{number}")
    api.until(lambda: api.watching == 2)
    assert len(watches()) == 2 and api.count("watch jobs") == 1
    clusters[0].close()
