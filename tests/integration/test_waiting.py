"""A client that waits for a run or cancels it, with a real MLflow and a namespace in memory; and
that all who settle agree.
"""

import copy
import queue
import threading
import time

import pytest
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from mlflow_backend.controller.control import Controller
from mlflow_backend.controller.namespace import Key
from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes import attach, wait
from mlflow_backend.places.kubernetes.client.observe import Change
from mlflow_backend.places.kubernetes.ownership import Claim
from mlflow_backend.places.kubernetes.run import ClusterRun
from mlflow_backend.places.kubernetes.submitted_job import SubmittedJob
from mlflow_backend.progress import Progress
from mlflow_runner.contract.causes import Cause
from tests.bed.objects import MemoryNamespace, failed, job, pod, stamp
from tests.bed.runs import Seen
from tests.bed.server import use


class Namespace(MemoryNamespace):
    """Pods go with their Job.

    `events` are those of every object; `not_deleted` is what a deletion raises.
    """

    context = "memory"

    def __init__(self):
        super().__init__()
        self.events, self.not_deleted = [], None

    def list_events(self, kind, name):
        return self.events

    def delete_job(self, name, uid):
        if self.not_deleted:
            raise self.not_deleted
        super().delete_job(name, uid)
        self.pods = [
            item for item in self.pods if item["metadata"]["ownerReferences"][0]["uid"] != uid
        ]


class Told:
    """An observer that tells once what is in the namespace."""

    def __init__(self, cluster):
        self._cluster = cluster

    def subscribe(self, job_name):
        changes = queue.Queue()
        for item in self._cluster.jobs.values():
            changes.put(Change("Job", item["metadata"]["name"], item))
        for item in self._cluster.pods:
            changes.put(Change("Pod", item["metadata"]["name"], item))
        if job_name not in self._cluster.jobs:
            changes.put(Change("Job", job_name, None, {"metadata": {}}))
        return changes

    def unsubscribe(self, job_name, changes):
        pass


@pytest.fixture
def cluster():
    return Namespace()


def new_run(status="RUNNING", submitted_ago_s=3600.0, **tags) -> str:
    """A run in MLflow that was sent to the namespace as Job `j`."""
    sent = {
        "compute.job": "j",
        "compute.job_uid": "uid-of-j",
        "compute.cluster": "uid-of-n",
        "compute.submitted": stamp(submitted_ago_s),
    }
    tags = {name: value for name, value in {**sent, **tags}.items() if value}
    run_id = MlflowClient().create_run("0", tags=tags).info.run_id
    MlflowClient().update_run(run_id, status)
    return run_id


def client(cluster, run_id, uid="uid-of-j") -> ClusterRun:
    """The run as its submitter has it."""
    claim = Claim("j", uid, "uid-of-n")
    return ClusterRun(
        SubmittedJob(cluster, Told(cluster), claim, run_id, "", False, 1.0, None, Progress())
    )


def end_of(run_id) -> tuple:
    found = Seen(run_id)
    return found.status, found.cause


def mlflow_run(run_id):
    return MlflowClient().get_run(run_id)


# All who settle


def beside(item, state):
    """The pod with a sidecar that runs."""
    statuses = [{"name": "run", "state": state}, {"name": "proxy", "state": {"running": {}}}]
    spec = {
        **item["spec"],
        "containers": [*item["spec"]["containers"], {"name": "proxy", "image": "p"}],
    }
    return {**item, "spec": spec, "status": {"phase": "Running", "containerStatuses": statuses}}


def waits(item, **waiting):
    statuses = [{"name": "run", "state": {"waiting": {"message": "m", **waiting}}}]
    return {**item, "status": {"phase": "Pending", "containerStatuses": statuses}}


def crashes(item):
    status = {"name": "proxy", "started": False, "state": {"terminated": {"exitCode": 2}}}
    spec = {**item["spec"], "initContainers": [{"name": "proxy", "restartPolicy": "Always"}]}
    return {**item, "spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [status]}}


EXITED = {"terminated": {"exitCode": 137, "reason": "Error", "finishedAt": stamp(60)}}
CASES = {
    # what is there: (the Job, its pod, events), then status and cause in MLflow, and whether the
    # Job is deleted
    "failed": (failed, lambda item: pod(item, "Failed", exit_code=3), [], ("FAILED", "ExitCode"), False),
    "finished": (lambda item: item, lambda item: pod(item, "Succeeded", exit_code=0), [], ("FINISHED", None), False),
    "a sidecar goes on": (lambda item: item, lambda item: beside(pod(item), EXITED), [], ("FAILED", "Killed"), True),
    "no image": (lambda item: item, lambda item: waits(pod(item), reason="ErrImagePull"), [], ("FAILED", "ImagePullError"), True),
    "init container crashes": (lambda item: item, lambda item: crashes(pod(item)), [], ("FAILED", "InitContainerFailed"), True),
    "no pod": (lambda item: item, lambda item: None, [{"reason": "FailedCreate", "message": "no", "firstTimestamp": stamp(99)}],
               ("FAILED", "AdmissionDenied"), True),
    "no Job": (lambda item: None, lambda item: None, [], ("KILLED", "Deleted"), False),
}  # fmt: skip


def by_client(cluster, run_id, monkeypatch, server):
    client(cluster, run_id).wait()


def by_command(cluster, run_id, monkeypatch, server):
    monkeypatch.setattr(attach, "connect", lambda context, namespace: cluster)
    assert attach.settle_now(mlflow_run(run_id))


def by_controller(cluster, run_id, monkeypatch, server):
    controller = Controller([cluster], server.uri)
    for item in cluster.jobs.values():
        controller.namespaces["n"].take("Job", "ADDED", item)
    for item in cluster.pods:
        controller.namespaces["n"].take("Pod", "ADDED", item)
    controller.handle(Key("n", run_id, "j", "uid-of-j"))


@pytest.mark.parametrize("teller", [by_client, by_command, by_controller])
@pytest.mark.parametrize("name", CASES)
def test_what_is_seen_gives_every_process_the_same_verdict(
    server, cluster, monkeypatch, name, teller
):
    make_job, make_pod, cluster.events, outcome, is_deleted = copy.deepcopy(CASES[name])
    run_id = new_run()
    mine = make_job(job("j", run_id))
    cluster.add(*[item for item in (mine, mine and make_pod(mine)) if item])
    teller(cluster, run_id, monkeypatch, server)
    assert end_of(run_id) == outcome
    assert cluster.deleted == ([("j", "uid-of-j")] if is_deleted else []) and cluster.released == []


@pytest.mark.parametrize("teller", [by_command, by_controller])
def test_all_release_a_pod_of_which_only_a_sidecar_is_left(server, cluster, monkeypatch, teller):
    run_id = new_run()
    mine = {**job("j", run_id), "spec": {"backoffLimitPerIndex": 2}}
    cluster.add(mine, beside(pod(mine), EXITED))
    try:
        teller(cluster, run_id, monkeypatch, server)
    except AssertionError:
        assert teller is by_command, "which says that the run goes on"
    assert cluster.released == [("j-x", "pod-of-uid-of-j", False)] and end_of(run_id) == (
        "RUNNING",
        None,
    )


# Waiting


def test_a_job_that_may_not_be_deleted_ends_the_wait_with_the_reason_and_the_run_has_its_end(
    server, cluster
):
    run_id = new_run()
    mine = job("j", run_id)
    cluster.add(mine, waits(pod(mine), reason="InvalidImageName"))
    cluster.not_deleted = ClusterError("cannot delete Job j: forbidden")
    with pytest.raises(ExecutionException, match="cannot delete Job j: forbidden"):
        client(cluster, run_id).wait()
    assert end_of(run_id) == ("FAILED", "InvalidImageName")


@pytest.mark.parametrize(
    "tags",
    [{"compute.job": "next", "compute.job_uid": "uid-of-next"}, {"compute.job_uid": "uid-of-next"}],
)
def test_a_wait_for_the_earlier_job_of_a_run_that_goes_on_ends_and_the_run_is_left_alone(
    server, cluster, tags
):
    run_id = new_run(**tags)
    with pytest.raises(ExecutionException) as raised:
        client(cluster, run_id).wait()
    other = tags.get("compute.job", "j")
    assert f"another submit continues it as Job {other}; Job j no longer" in str(raised.value)
    assert f"mlflow-compute wait {run_id}" in str(raised.value) and end_of(run_id) == (
        "RUNNING",
        None,
    )


def test_a_wait_for_a_run_that_another_submit_is_taking_up_ends(server, cluster):
    run_id = new_run(**{"compute.job": "", "compute.job_uid": ""})
    with pytest.raises(
        ExecutionException,
        match="another submit continues it; Job j no longer",
    ):
        client(cluster, run_id).wait()


def attached(cluster, run_id, monkeypatch) -> ClusterRun:
    monkeypatch.setattr(attach, "connect", lambda context, namespace: cluster)
    monkeypatch.setattr(attach, "Observer", lambda cluster, label, value: Told(cluster))
    return ClusterRun(attach.attach(mlflow_run(run_id), False, Progress()))


@pytest.mark.parametrize("has_job", [True, False])
def test_a_wait_that_begins_soon_after_a_submit_broke_off_ends_with_it(
    server, cluster, monkeypatch, has_job
):
    run_id = new_run(submitted_ago_s=58, **{"compute.job_uid": ""})
    if has_job:
        cluster.add(mine := job("j", run_id, age_s=58), pod(mine))
    assert not attached(cluster, run_id, monkeypatch).wait()
    assert end_of(run_id) == ("FAILED", "SubmitError")
    assert cluster.deleted == ([("j", "uid-of-j")] if has_job else [])


def test_a_wait_that_begins_during_a_submit_waits_for_its_job(server, cluster, monkeypatch):
    run_id = new_run(submitted_ago_s=1, **{"compute.job_uid": ""})
    mine = failed(job("j", run_id, age_s=1))
    cluster.add(mine, pod(mine, "Failed", exit_code=3))
    found = attached(cluster, run_id, monkeypatch)
    threading.Timer(0.5, MlflowClient().set_tag, (run_id, "compute.job_uid", "uid-of-j")).start()
    assert not found.wait()
    assert end_of(run_id) == ("FAILED", "ExitCode") and cluster.deleted == []


class Ending(Namespace):
    """The run's container ends at the third look, its sidecar never."""

    def __init__(self):
        super().__init__()
        self.looks = 0

    def list_objects(self, kind, selector, keep=lambda item: item):
        self.looks += kind == "Pod"
        if self.looks == 3:
            self.pods = [beside(item, EXITED) for item in self.pods]
        return super().list_objects(kind, selector, keep)


def test_what_a_sidecar_holds_is_released_after_the_runner_has_announced_the_end(server):
    cluster = Ending()
    run_id = new_run("FINISHED", **{"compute.status": "FINISHED", "compute.exit_code": "0"})
    mine = job("j", run_id)
    cluster.add(mine, beside(pod(mine), {"running": {}}))
    changes = Told(cluster).subscribe("j")
    waiting = wait.Waiting(client(cluster, run_id)._submitted, changes)
    while not changes.empty():
        waiting._take(changes.get())
    waiting._announced = True
    changes.put(Change("Log", "j-x", None))
    assert waiting.until_end().status == "FINISHED"
    assert cluster.looks == 3 and cluster.deleted == [("j", "uid-of-j")]


# Cancelling


@pytest.mark.parametrize("uid", ["uid-of-j", None])
@pytest.mark.parametrize("foreign", [{}, {"app.kubernetes.io/managed-by": "Helm"}])
def test_a_cancel_deletes_no_job_that_is_not_labelled_for_the_run(server, cluster, uid, foreign):
    run_id = new_run()
    cluster.add(job("j", "another-run", labels=foreign))
    with pytest.raises(ExecutionException) as raised:
        client(cluster, run_id, uid).cancel()
    assert (
        f"Job j: the tags of run {run_id} name it, but its labels do not name the run: it is left "
        "unchanged"
    ) in str(raised.value)
    assert cluster.deleted == [] and end_of(run_id) == ("KILLED", Cause.CANCELLED)


@pytest.mark.parametrize("uid", ["uid-of-j", None])
def test_a_cancel_deletes_the_runs_own_job(server, cluster, uid):
    run_id = new_run()
    cluster.add(mine := job("j", run_id), pod(mine))
    client(cluster, run_id, uid).cancel()
    assert cluster.deleted == [("j", "uid-of-j")] and end_of(run_id) == ("KILLED", Cause.CANCELLED)


def test_a_cancel_leaves_a_job_that_has_taken_the_name_since(server, cluster):
    run_id = new_run()
    cluster.add(job("j", run_id, uid="of-the-next"))
    client(cluster, run_id).cancel()
    assert cluster.deleted == []


def test_a_cancel_deletes_the_job_while_mlflow_is_away(server, cluster, monkeypatch):
    run_id = new_run()
    cluster.add(mine := job("j", run_id), pod(mine))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    use("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(
        ExecutionException, match="Job j is deleted, but its run could not be updated"
    ):
        client(cluster, run_id).cancel()
    assert cluster.deleted == [("j", "uid-of-j")]


def test_a_second_interrupt_ends_the_wait_for_the_pod_and_the_cancel_can_be_repeated(
    server, cluster, monkeypatch
):
    run_id = new_run()
    cluster.add(mine := job("j", run_id), pod(mine))
    found = client(cluster, run_id)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cluster, "list_objects", interrupted)
        with pytest.raises(KeyboardInterrupt):
            found.cancel()
    assert cluster.deleted == [("j", "uid-of-j")] and end_of(run_id) == ("KILLED", Cause.CANCELLED)
    began = time.monotonic()
    found.cancel()
    assert time.monotonic() - began < 5 and end_of(run_id) == ("KILLED", Cause.CANCELLED)
