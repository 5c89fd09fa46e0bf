"""Runs that never start. All are submitted at once, since each of them only waits."""

import json

import pytest
from mlflow.tracking import MlflowClient

from tests.cluster import dev
from tests.faults.fixtures import CONTROLLED

SLOT = "requests.mlflow-compute.test/none"
START_S = 12
MISSING = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "not-there", "key": "x"}}}
FAULTS = {
    "image that does not exist": ({"image": "localhost:5000/none:1", "start_timeout": START_S}, "ImagePullError"),
    "registry down": ({"image": "localhost:5999/none:1", "start_timeout": START_S}, "ImagePullError"),
    "image name that cannot be": ({"image": "Not A Name"}, "InvalidImageName"),
    "no node takes it": ({"resources": {"cpu": 4000}, "start_timeout": START_S}, "Unschedulable"),
    "node selector that no node has": ({"node_selector": {"no": "node"}, "start_timeout": START_S}, "Unschedulable"),
    "quota used up": ({"resources": {"mlflow-compute.test/none": 1}, "start_timeout": START_S}, "QuotaExceeded"),
    "refused by Pod Security": ({"pod_template": {"spec": {"hostPID": True}}, "start_timeout": START_S}, "AdmissionDenied"),
    "volume of a Secret that is not there": (
        {"pod_template": {"spec": {"volumes": [{"name": "tmp", "emptyDir": None, "secret": {"secretName": "not-there"}}]}},
         "start_timeout": START_S}, "VolumeError",
    ),
    "variable of a Secret that is not there": (
        {"pod_template": {"spec": {"containers": [{"name": "run", "env": [MISSING]}]}}, "start_timeout": START_S},
        "CreateContainerConfigError",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def quotas(cluster_access, controlled):
    text = json.dumps({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {SLOT: "0"}}})
    for namespace in (dev.NAMESPACE, CONTROLLED):
        dev.kubectl(cluster_access, "-n", namespace, "apply", "-f", "-", stdin=text)
    yield
    for namespace in (dev.NAMESPACE, CONTROLLED):
        dev.kubectl(cluster_access, "-n", namespace, "delete", "resourcequota", "none")


def test_each_ends_with_its_cause_and_without_its_job(faults, quotas, kubectl):
    started = {fault: faults.start("true", **fields) for fault, (fields, _) in FAULTS.items()}
    wrong = []
    for fault, (_, cause) in FAULTS.items():
        try:
            faults.check(fault, started[fault], "FAILED", cause, timed=False)
        except AssertionError as error:
            wrong.append((fault, str(error)))
    assert not wrong
    for namespace in (dev.NAMESPACE, CONTROLLED):
        left = kubectl("-n", namespace, "get", "jobs", "-o", "name").split()
        names = {f"job.batch/{watched.run.job_name}" for watched in sum(started.values(), [])}
        assert not names.intersection(left)


def test_a_client_that_died_in_mid_submit(faults, controlled, cluster, kubectl, project, table, cluster_access, server):
    """Killed between tagging the run and creating its Job; the run's age is set back, as nobody waits for a minute."""
    import time

    from mlflow_backend.cluster.api import connect
    from tests.bed.runs import Seen, wait_for
    from tests.faults.watched import CONTROLLER, NOBODY, command

    client, old_ms = MlflowClient(), int((time.time() - 300) * 1000)
    for watcher, namespace in ((CONTROLLER, controlled), (NOBODY, dev.NAMESPACE)):
        cluster_ = connect(cluster_access.context, namespace)
        tags = {"compute.job": "never-made", "compute.namespace": namespace, "compute.context": cluster_access.context,
                "compute.cluster": cluster_.identity()}  # fmt: skip
        run_id = client.create_run("0", start_time=old_ms, tags=tags).info.run_id
        if watcher == NOBODY:
            assert command("settle", run_id).returncode == 0
        wait_for(lambda one=run_id: Seen(one).status == "FAILED", timeout_s=90)
        found = Seen(run_id)
        table.add("client killed in mid submit", watcher, found, None)
        assert found.cause == "SubmitError"
