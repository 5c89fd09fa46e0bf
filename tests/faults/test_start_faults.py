"""Runs that never start. All are submitted at once, since each of them only waits."""

import json
import subprocess
import sys
import time

import pytest
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from tests.bed.runs import Seen, wait_for
from tests.cluster import dev
from tests.faults.fixtures import CONTROLLED
from tests.faults.watched import CLIENT, COMMAND, CONTROLLER, command

UNWANTED = "mlflow-compute.test/unwanted"
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
    "refused by an admission policy": (
        {"pod_template": {"metadata": {"labels": {UNWANTED: "yes"}}}, "start_timeout": START_S}, "AdmissionDenied",
    ),
    "volume of a Secret that is not there": (
        {"pod_template": {"spec": {"volumes": [{"name": "tmp", "emptyDir": None, "secret": {"secretName": "not-there"}}]}},
         "start_timeout": START_S}, "VolumeError",
    ),
    "variable of a Secret that is not there": (
        {"pod_template": {"spec": {"containers": [{"name": "run", "env": [MISSING]}]}}, "start_timeout": START_S},
        "CreateContainerConfigError",
    ),
}  # fmt: skip
KILLED_CLIENT = """
import os, signal, sys
import mlflow
from mlflow_backend.places.kubernetes.client.api import Cluster

create = Cluster.create

def create_no_job(self, item, dry_run=False):
    if item["kind"] == "Job" and not dry_run:
        os.kill(os.getpid(), signal.SIGKILL)
    return create(self, item, dry_run)

Cluster.create = create_no_job
mlflow.projects.run(sys.argv[1], backend="compute", backend_config={"COMPUTE": "dev-cluster", "RUN_ID": sys.argv[2]})
"""


@pytest.fixture
def quotas(cluster_access, controlled):
    text = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none"},
            "spec": {"hard": {SLOT: "0"}},
        }
    )
    for namespace in (dev.NAMESPACE, CONTROLLED):
        dev.kubectl(cluster_access, "-n", namespace, "apply", "-f", "-", stdin=text)
    yield
    for namespace in (dev.NAMESPACE, CONTROLLED):
        dev.kubectl(cluster_access, "-n", namespace, "delete", "resourcequota", "none")


@pytest.fixture
def policy(cluster_access):
    """Pods with the label `UNWANTED` are refused by the API server."""
    group, kind = "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"
    pods = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
    }
    wanted = {
        "expression": f"!('{UNWANTED}' in object.metadata.?labels.orValue({{}}))",
        "message": "no namespace accepts these pods",
    }
    spec = {"matchConstraints": {"resourceRules": [pods]}, "validations": [wanted]}
    binding = {"policyName": "unwanted", "validationActions": ["Deny"]}
    for item in ({"kind": kind, "spec": spec}, {"kind": f"{kind}Binding", "spec": binding}):
        text = json.dumps({"apiVersion": group, "metadata": {"name": "unwanted"}, **item})
        dev.kubectl(cluster_access, "apply", "-f", "-", stdin=text)

    def is_in_force():
        try:
            dev.kubectl(
                cluster_access,
                "run",
                "unwanted",
                "--image=none",
                f"--labels={UNWANTED}=yes",
                "--dry-run=server",
            )
        except dev.KubectlFailed as refused:
            return "no namespace accepts these pods" in str(refused)

    wait_for(is_in_force)
    yield
    dev.kubectl(cluster_access, "delete", kind, "unwanted")
    dev.kubectl(cluster_access, "delete", f"{kind}Binding", "unwanted")


@pytest.fixture
def killed(faults, server):
    """The runs of two clients that were killed between tagging them and creating their Jobs, by who
    watches.

    Both are old runs that were taken up again: it is the submit that has to be young, not the run.
    """
    runs = {}
    for watcher in (CONTROLLER, COMMAND):
        root = faults.prepare(watcher, "true")
        run_id = (
            MlflowClient().create_run("0", start_time=int((time.time() - 3600) * 1000)).info.run_id
        )
        client = subprocess.run([sys.executable, "-c", KILLED_CLIENT, root, run_id], timeout=120)
        assert client.returncode == -9
        runs[watcher] = run_id
    return runs


def test_each_ends_with_its_cause_and_without_its_job(
    faults, quotas, policy, kubectl, killed, table
):
    """Those of clients that were killed come last, as they are believed to be on their way for a
    minute.
    """
    assert {Seen(run_id).status for run_id in killed.values()} == {"SCHEDULED"}
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
        names = {
            f"job.batch/{watched.run.job_name}" for runs in started.values() for watched in runs
        }
        assert not names.intersection(left)
    wait_for(lambda: Seen(killed[CONTROLLER]).status == "FAILED", timeout_s=150)
    wait_for(
        lambda: (
            command("settle", killed[COMMAND]).returncode == 0
            and Seen(killed[COMMAND]).status == "FAILED"
        ),
        timeout_s=60,
    )
    for watcher, run_id in killed.items():
        table.add("client killed in mid submit", watcher, Seen(run_id), None)
        assert (Seen(run_id).status, Seen(run_id).cause) == ("FAILED", "SubmitError")


def test_a_submit_that_is_refused_after_its_check(faults, kubectl, table, last_run):
    """A quota that was free when the target was checked is used up; nothing of the submit is left
    but the run that says so.
    """
    faults.submit(CLIENT, "true")
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "jobs"},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(quota))
    before = kubectl("get", "configmaps,secrets,jobs", "-o", "name").split()
    try:
        wait_for(
            lambda: (
                "hard"
                in json.loads(kubectl("get", "resourcequota", "jobs", "-o", "json")).get(
                    "status", {}
                )
            )
        )
        with pytest.raises(ExecutionException, match="exceeded quota"):
            faults.submit(CLIENT, "true")
    finally:
        kubectl("delete", "resourcequota", "jobs")
    assert set(kubectl("get", "configmaps,secrets,jobs", "-o", "name").split()) <= set(before)
    found = last_run()
    table.add("Job refused after the check (quota)", CLIENT, found, None)
    assert (found.status, found.cause) == ("FAILED", "SubmitError")
