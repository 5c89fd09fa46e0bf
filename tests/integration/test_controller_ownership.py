"""The controller acts on a run only if the run's own tags name the Job and the namespace: driven in
process, with a real MLflow.
"""

import json
from collections import Counter

import pytest
from mlflow.tracking import MlflowClient

from mlflow_backend.controller.control import MAX_TRIES, Controller
from mlflow_backend.controller.namespace import Key
from mlflow_backend.controller.work import WorkQueue
from mlflow_backend.errors import ClusterError
from mlflow_runner.contract.answers import Refused
from tests.bed.objects import MemoryNamespace, failed, job, pod, stamp

FORGED = json.dumps(
    {"status": "KILLED", "cause": "Cancelled", "message": "mallory was here", "exit_code": 66}
)


class Queue(WorkQueue):
    """Says which keys are to be handled now, and which later."""

    def __init__(self):
        super().__init__()
        self.now: list[Key] = []
        self.later: list[Key] = []

    def add(self, key, after_s=0.0):
        super().add(key, after_s)
        keys = self.later if after_s else self.now
        if key not in keys:
            keys.append(key)


class Bed:
    """A controller of one namespace in memory; what the test puts into the namespace is told to the
    controller and handled.
    """

    def __init__(self, uri: str):
        self.cluster, self.queue = MemoryNamespace(), Queue()
        self.controller = Controller([self.cluster], uri, self.queue)
        self.client = MlflowClient()

    def run(self, job_name=None, uid="", status="RUNNING", cluster="uid-of-n", **tags) -> str:
        """A run in MLflow, sent to this namespace an hour ago if it has a Job."""
        sent = (
            {"compute.job": job_name, "compute.cluster": cluster, "compute.submitted": stamp(3600)}
            if job_name
            else {}
        )
        named = (
            {"compute.job_uid": uid or f"uid-of-{job_name}"} if job_name and uid is not None else {}
        )
        run_id = self.client.create_run("0", tags={**sent, **named, **tags}).info.run_id
        self.client.update_run(run_id, status)
        return run_id

    def tell(self, kind: str, change: str, item: dict) -> None:
        """What the watch would tell, and everything that follows from it at once."""
        self.controller.namespaces["n"].take(kind, change, item)
        self.handle()

    def show(self, *items: dict) -> None:
        self.cluster.add(*items)
        for item in items:
            self.tell("Pod" if "phase" in item["status"] else "Job", "ADDED", item)

    def handle(self) -> None:
        while self.queue.now:
            self.controller.handle(self.queue.now.pop(0))

    def let_time_pass(self) -> None:
        """What was to be handled later is handled."""
        self.queue.now, self.queue.later = self.queue.later, []
        self.handle()

    def look_for_stopped(self) -> None:
        self.controller.look_for_stopped()
        self.handle()

    def seen(self, run_id: str) -> tuple:
        run = self.client.get_run(run_id)
        return run.info.status, run.data.tags.get("compute.cause")

    def whole(self, run_id: str) -> dict:
        return self.client.get_run(run_id).to_dictionary()


@pytest.fixture
def bed(server):
    return Bed(server.uri)


def test_the_end_of_a_runs_own_job_is_the_runs_end(bed):
    run_id = bed.run("mine")
    mine = job("mine", run_id)
    bed.show(mine)
    bed.cluster.jobs["mine"] = failed(mine)
    bed.tell("Job", "MODIFIED", bed.cluster.jobs["mine"])
    assert bed.seen(run_id) == ("FAILED", "ExitCode")


def test_a_deleted_job_ends_its_own_run(bed):
    run_id = bed.run("mine")
    mine = job("mine", run_id)
    bed.show(mine)
    bed.cluster.jobs.clear()
    bed.tell("Job", "DELETED", mine)
    assert bed.seen(run_id) == ("KILLED", "Deleted")


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED", "FAILED", "KILLED", "SCHEDULED"])
@pytest.mark.parametrize(
    "named",
    [
        {},
        {"job_name": "other"},
        {"job_name": "forged", "uid": "another-uid"},
        {"job_name": "forged", "cluster": "another-namespace"},
        {"job_name": "forged", "cluster": ""},
    ],
    ids=[
        "a plain run",
        "of another Job",
        "of another Job of this name",
        "of another namespace",
        "of no cluster",
    ],
)
def test_a_job_with_a_runs_label_does_not_touch_a_run_that_does_not_name_it(bed, status, named):
    run_id = bed.run(status=status, **named)
    before = bed.whole(run_id)
    forged = job("forged", run_id)
    bed.show(forged, pod(forged, "Failed", FORGED))
    bed.cluster.jobs["forged"] = failed(forged)
    bed.tell("Job", "MODIFIED", bed.cluster.jobs["forged"])
    bed.look_for_stopped()
    bed.cluster.jobs.clear()
    bed.tell("Job", "DELETED", forged)
    assert bed.whole(run_id) == before and bed.cluster.deleted == []


def test_an_end_that_was_told_stands_whatever_the_job_shows(bed):
    end = {"compute.status": "FINISHED", "compute.exit_code": "0"}
    run_id = bed.run("mine", status="FINISHED", **end)
    before = bed.whole(run_id)
    mine = job("mine", run_id)
    bed.show(mine, pod(mine, "Failed", FORGED))
    bed.tell("Job", "DELETED", mine)
    assert bed.whole(run_id) == before and bed.cluster.deleted == []


def test_the_earlier_job_of_a_run_that_was_continued_ends_nothing(bed):
    run_id = bed.run("newer")
    earlier, newer = job("earlier", run_id), job("newer", run_id)
    bed.show(earlier, newer, pod(newer))
    before = bed.whole(run_id)
    bed.tell("Job", "MODIFIED", failed(earlier))
    del bed.cluster.jobs["earlier"]
    bed.tell("Job", "DELETED", earlier)
    assert bed.whole(run_id) == before
    bed.client.update_run(run_id, "KILLED")
    bed.look_for_stopped()
    assert bed.cluster.deleted == [("newer", "uid-of-newer")]


@pytest.mark.parametrize("stop", ["KILLED", "deleted"])
def test_a_run_that_is_stopped_in_mlflow_loses_its_own_job_and_no_other(bed, stop):
    runs = {name: bed.run(name) for name in ("stopped", "running")}
    bed.show(*(job(name, run_id) for name, run_id in runs.items()))
    if stop == "KILLED":
        bed.client.update_run(runs["stopped"], "KILLED")
    else:
        bed.client.delete_run(runs["stopped"])
    bed.look_for_stopped()
    assert bed.cluster.deleted == [("stopped", "uid-of-stopped")]
    assert bed.seen(runs["stopped"]) == (
        ("KILLED", "Cancelled") if stop == "KILLED" else ("RUNNING", None)
    )
    assert bed.seen(runs["running"]) == ("RUNNING", None)
    bed.look_for_stopped()
    assert len(bed.cluster.deleted) == 1


@pytest.mark.parametrize("label", ["zzz", "9" * 40, "99999999999"])
def test_a_bad_experiment_label_hides_no_other_runs_stop(bed, label):
    good, bad = bed.run("good"), bed.run("bad")
    bed.show(
        *(
            job(name, run_id, labels={"mlflow-compute/experiment-id": label})
            for name, run_id in (("good", good), ("bad", bad))
        )
    )
    bed.show(job("unknown", "0" * 32, labels={"mlflow-compute/experiment-id": label}))
    bed.client.update_run(good, "KILLED")
    bed.look_for_stopped()
    assert bed.seen(good) == ("KILLED", "Cancelled") and bed.cluster.deleted == [
        ("good", "uid-of-good")
    ]


def test_what_has_our_label_and_other_peoples_shape_stops_nothing(bed):
    run_id = bed.run("mine")
    mine = job("mine", run_id)
    bed.show(mine)
    nameless, alone = pod(mine, "Failed", FORGED, owned=False), pod(mine, "Failed", FORGED)
    nameless["metadata"].update(name="a", uid="a")
    alone["metadata"].update(
        name="b",
        uid="b",
        ownerReferences=[
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "r",
                "uid": "r",
                "controller": True,
            }
        ],
    )
    manual = job("manual", "x")
    del manual["metadata"]["labels"]["mlflow-compute/run-id"]
    bed.show(nameless, alone, manual, pod(manual))
    assert bed.seen(run_id) == ("RUNNING", None)
    bed.cluster.jobs["mine"] = failed(mine)
    bed.tell("Job", "MODIFIED", bed.cluster.jobs["mine"])
    assert bed.seen(run_id) == ("FAILED", "ExitCode"), "and not what the others' messages say"


def test_a_run_whose_submit_is_under_way_waits_until_it_names_its_job(bed):
    run_id = bed.run("mine", uid=None)
    bed.client.set_tag(run_id, "compute.submitted", stamp())
    mine = failed(job("mine", run_id, age_s=1))
    bed.show(mine)
    assert bed.seen(run_id) == ("RUNNING", None)
    bed.client.set_tag(run_id, "compute.job_uid", "uid-of-mine")
    bed.controller.handle(Key("n", run_id, "mine", "uid-of-mine"))
    assert bed.seen(run_id) == ("FAILED", "ExitCode")


def test_a_submit_that_broke_off_before_the_run_named_its_job_is_ended_and_the_job_deleted(bed):
    run_id = bed.run("mine", uid=None)
    bed.show(job("mine", run_id), job("other", run_id))
    assert bed.seen(run_id) == ("FAILED", "SubmitError")
    assert bed.cluster.deleted == [("mine", "uid-of-mine")]


@pytest.mark.parametrize("uid", [None, "", "uid-of-another"])
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_run_that_has_ended_is_looked_at_no_more(bed, uid, is_deleted):
    run_id = bed.run("mine", uid=uid)
    mine = job("mine", run_id)
    bed.show(mine)
    bed.cluster.jobs.clear()
    bed.tell("Job", "DELETED", mine)
    if is_deleted:
        bed.client.delete_run(run_id)
    for _ in range(3):
        bed.let_time_pass()
    assert not bed.queue.later
    assert is_deleted or bed.seen(run_id)[0] != "RUNNING" or uid == "uid-of-another"


def test_what_no_process_watched_is_found_by_what_mlflow_holds_unfinished(bed):
    gone, elsewhere, broken = (
        bed.run("gone"),
        bed.run("there", cluster="another"),
        bed.run("never", uid=None),
    )
    alive = bed.run("alive")
    bed.show(job("alive", alive))
    bed.controller.handle(Key("n"))
    bed.handle()
    assert [bed.seen(run_id) for run_id in (gone, broken)] == [
        ("KILLED", "Deleted"),
        ("FAILED", "SubmitError"),
    ]
    assert [bed.seen(run_id) for run_id in (elsewhere, alive)] == [("RUNNING", None)] * 2


def test_mlflow_is_asked_once_whose_job_it_is(bed):
    asked = Counter()
    run_id = bed.run("mine")
    mine = job("mine", run_id)
    read, bed.controller._runs.read = (
        bed.controller._runs.read,
        lambda run_id: asked.update([run_id]) or read(run_id),
    )
    bed.show(mine, pod(mine))
    for _ in range(3):
        bed.tell(
            "Job",
            "MODIFIED",
            {**mine, "metadata": {**mine["metadata"], "resourceVersion": stamp()}},
        )
        bed.look_for_stopped()
    assert asked == {run_id: 1}


def test_a_job_that_makes_the_controller_fail_is_left_alone_after_some_tries_until_it_changes(
    bed, caplog
):
    odd, run_id = bed.run("odd"), bed.run("mine")
    key, broken = Key("n", odd, "odd", "uid-of-odd"), job("odd", odd)
    broken["metadata"]["creationTimestamp"] = "yesterday"
    bed.cluster.add(broken)
    bed.controller.namespaces["n"].take("Job", "ADDED", broken)
    bed.queue.now.clear()
    for _ in range(MAX_TRIES):
        bed.controller.attempt(key)
    said = [record.getMessage() for record in caplog.records]
    assert said.count(f"run {odd}, Job n/odd: internal error") == 1
    assert said[-1].startswith(
        f"run {odd}, Job n/odd: failed {MAX_TRIES} times, giving up until the Job changes: "
    )
    assert bed.queue.failures(key) == 0
    bed.controller.handle(Key("n"))
    bed.controller.namespaces["n"].take("Job", "ADDED", broken)
    assert key not in bed.queue.now, "neither MLflow nor a list that repeats it brings it back"
    bed.show(job("mine", run_id))
    changed = job("odd", odd)
    bed.cluster.add(changed)
    bed.controller.namespaces["n"].take("Job", "MODIFIED", changed)
    assert key in bed.queue.now


def test_a_run_that_mlflow_refuses_is_left_alone_and_tried_again_when_all_were_refused(
    bed, monkeypatch
):
    run_id = bed.run("gone")
    key, everything = Key("n", run_id, "gone", "uid-of-gone"), Key("n")

    def refuse(*_):
        raise Refused("401")

    with monkeypatch.context() as patch:
        patch.setattr(bed.controller._runs, "read", refuse)
        for _ in range(MAX_TRIES):
            bed.controller.attempt(key)
        bed.queue.now.clear()
        bed.controller.attempt(everything)
        assert key not in bed.queue.now
        patch.setattr(bed.controller._runs, "unfinished", refuse)
        bed.controller.attempt(everything)
    bed.controller.attempt(everything)
    bed.controller.attempt(everything)
    bed.handle()
    assert bed.seen(run_id) == ("KILLED", "Deleted")


def test_without_the_namespaces_uid_nothing_is_settled(bed):
    run_id = bed.run("mine")
    bed.cluster._uid = None
    bed.cluster.add(failed(job("mine", run_id)))
    bed.controller.namespaces["n"].take("Job", "ADDED", bed.cluster.jobs["mine"])
    with pytest.raises(ClusterError) as caught:
        bed.handle()
    assert str(caught.value) == (
        "namespace n: its uid could not be read: check that it exists, and allow the controller to "
        "get it"
    )
    assert bed.seen(run_id) == ("RUNNING", None)
