"""The controller and runs that no client waits for."""

import functools
import json
import os
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from tests.bed.runs import THERE, wait_for
from tests.bed.runs import run_there as run
from tests.bed.server import BIN
from tests.cluster import dev

NAMESPACE = "mlflow-controlled"
"""Where no other controller has the Lease."""
CLOSED = "mlflow-closed"
"""A namespace in which the controller has no rights, and no admission policy judges Jobs."""


@pytest.fixture
def kubectl(kubectl, cluster_access):
    dev.add_namespace(cluster_access, NAMESPACE)
    return lambda *arguments, **keywords: kubectl("--namespace", NAMESPACE, *arguments, **keywords)


@pytest.fixture
def kubeconfig(cluster_access, tmp_path):
    """A function that writes a kubeconfig for a process whose own namespace is NAMESPACE, as this
    user or with a token; its path.
    """

    def write(token=None):
        content = yaml.safe_load(Path(cluster_access.kubeconfig).read_text())
        (context,) = [
            item["context"]
            for item in content["contexts"]
            if item["name"] == cluster_access.context
        ]
        content["current-context"], context["namespace"] = cluster_access.context, NAMESPACE
        if token:
            content["users"].append({"name": "by-token", "user": {"token": token}})
            context["user"] = "by-token"
        (tmp_path / "controller-kubeconfig").write_text(yaml.safe_dump(content))
        return str(tmp_path / "controller-kubeconfig")

    return write


@pytest.fixture
def controller(cluster, server, kubeconfig):
    """A function that starts `mlflow-compute controller` as a process here; its base URL and the
    process. Its log is in `log`.
    """
    cluster(namespace=NAMESPACE)
    started = []

    def start(*namespaces, token=None, log=subprocess.DEVNULL):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [BIN / "mlflow-compute", "controller", "--port", str(port)]
        command += [f"--namespace={name}" for name in namespaces or [NAMESPACE]]
        variables = {
            **os.environ,
            "MLFLOW_TRACKING_URI": server.uri,
            "KUBECONFIG": kubeconfig(token),
        }
        process = subprocess.Popen(command, env=variables, stderr=log, text=True)
        started.append(process)
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
        return f"http://127.0.0.1:{port}", process

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


@pytest.fixture
def closed(kubectl, cluster_access):
    """Run kubectl in the namespace CLOSED, which goes with the test."""
    call = functools.partial(dev.kubectl, cluster_access, "--namespace", CLOSED)
    dev.kubectl(cluster_access, "create", "namespace", CLOSED)
    yield call
    dev.kubectl(cluster_access, "delete", "namespace", CLOSED, "--wait=true")


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def metrics(url):
    return urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode().splitlines()


@pytest.fixture
def submitted(cluster, project):
    def submit(text, **config):
        return run(project(text), {**THERE, "STREAM_OUTPUT": False, **config}, synchronous=False)

    return submit


def test_a_deleted_job_is_settled_by_the_controller_alone(controller, submitted, seen, kubectl):
    url, _ = controller()
    one = submitted("sleep 600")
    wait_for(lambda: seen(one.run_id).status == "RUNNING")
    kubectl("delete", "job", one.job_name)
    wait_for(lambda: (seen(one.run_id).status, seen(one.run_id).cause) == ("KILLED", "Deleted"))
    counted = f'mlflow_compute_settled_runs_total{{cause="Deleted",namespace="{NAMESPACE}",status="KILLED"}} 1.0'
    wait_for(lambda: counted in metrics(url))


def test_a_run_marked_killed_in_mlflow_loses_its_job_and_keeps_its_last_lines(
    controller, submitted, seen, kubectl
):
    controller()
    one = submitted("trap 'echo saving; exit 0' TERM; echo begun; sleep 600 & wait")
    wait_for(lambda: b"begun" in seen(one.run_id).log)
    MlflowClient().update_run(one.run_id, "KILLED")
    wait_for(lambda: not kubectl("get", "job", one.job_name, "--ignore-not-found"))
    wait_for(lambda: not kubectl("get", "pods", "-l", f"job-name={one.job_name}", "-o", "name"))
    found = seen(one.run_id)
    assert (found.status, found.cause) == ("KILLED", "Cancelled") and b"saving\n" in found.log


def test_what_happened_while_no_controller_was_there_is_settled_when_it_comes(
    controller, submitted, seen, kubectl
):
    deleted, bad = submitted("sleep 600"), submitted("true", image="Not A Name")
    wait_for(lambda: seen(deleted.run_id).status == "RUNNING")
    kubectl("delete", "job", deleted.job_name, "--grace-period=0", "--force")
    controller()
    wait_for(
        lambda: (seen(deleted.run_id).status, seen(deleted.run_id).cause) == ("KILLED", "Deleted")
    )
    wait_for(
        lambda: (seen(bad.run_id).status, seen(bad.run_id).cause) == ("FAILED", "InvalidImageName")
    )


def test_of_two_replicas_one_leads_and_the_other_takes_over_when_it_ends(
    controller, submitted, seen, kubectl
):
    _, first = controller()
    controller()
    holder = kubectl(
        "get", "lease", "mlflow-compute-controller", "-o", "jsonpath={.spec.holderIdentity}"
    )
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=20)
    wait_for(
        lambda: (
            kubectl(
                "get", "lease", "mlflow-compute-controller", "-o", "jsonpath={.spec.holderIdentity}"
            )
            not in ("", holder)
        )
    )
    one = submitted("true", image="Not A Name")
    wait_for(lambda: seen(one.run_id).cause == "InvalidImageName")


def test_a_controller_changes_nothing_of_a_live_run(controller, submitted, seen):
    controller()
    one = submitted("sleep 3; exit 4")
    wait_for(lambda: seen(one.run_id).status == "FAILED")
    assert (seen(one.run_id).cause, seen(one.run_id).tags["compute.exit_code"]) == ("ExitCode", "4")


def test_a_run_deleted_in_mlflow_loses_its_job(controller, submitted, seen, kubectl):
    controller()
    one = submitted("sleep 600")
    wait_for(lambda: seen(one.run_id).status == "RUNNING")
    MlflowClient().delete_run(one.run_id)
    wait_for(lambda: not kubectl("get", "job", one.job_name, "--ignore-not-found"))


def test_a_namespace_that_may_not_be_read_does_not_stop_the_others(
    controller, submitted, seen, kubectl, closed, tmp_path
):
    kubectl("create", "serviceaccount", "controller-of-one")
    try:
        kubectl(
            "create",
            "role",
            "controller-of-one",
            "--verb=get,list,watch,delete",
            "--resource=jobs,pods,events,namespaces",
        )
        kubectl("create", "role", "leader", "--verb=get,create,update", "--resource=leases")
        for role in ("controller-of-one", "leader"):
            kubectl(
                "create",
                "rolebinding",
                role,
                f"--role={role}",
                f"--serviceaccount={NAMESPACE}:controller-of-one",
            )
        with open(tmp_path / "controller-log", "w") as log:
            url, _ = controller(
                CLOSED, NAMESPACE, token=kubectl("create", "token", "controller-of-one"), log=log
            )
            one = submitted("true", image="Not A Name")
            wait_for(lambda: seen(one.run_id).cause == "InvalidImageName")
            readable = [
                line
                for line in metrics(url)
                if line.startswith("mlflow_compute_namespace_readable{")
            ]
            assert answers(f"{url}/healthz")
    finally:
        for kind in ("serviceaccount", "role", "rolebinding"):
            kubectl("delete", kind, "controller-of-one", "--ignore-not-found")
        for kind in ("role", "rolebinding"):
            kubectl("delete", kind, "leader", "--ignore-not-found")
    names = {NAMESPACE: "1.0", CLOSED: "0.0"}
    assert set(readable) == {
        f'mlflow_compute_namespace_readable{{namespace="{name}"}} {value}'
        for name, value in names.items()
    }
    lines = [
        line
        for line in (tmp_path / "controller-log").read_text().splitlines()
        if f"namespace {CLOSED}: could not read" in line
    ]
    assert lines and all("forbidden" in line for line in lines)


def test_objects_with_our_labels_that_others_made_end_no_run_and_stop_nothing(
    controller, submitted, seen, kubectl, closed, cluster_access
):
    url, _ = controller(CLOSED, NAMESPACE)
    one = submitted("sleep 600")
    wait_for(lambda: seen(one.run_id).status == "RUNNING")
    finished = MlflowClient().create_run("0").info.run_id
    MlflowClient().set_terminated(finished, "FINISHED")
    before = [MlflowClient().get_run(run_id).to_dictionary() for run_id in (one.run_id, finished)]
    ours = {"app.kubernetes.io/managed-by": "mlflow-compute"}
    nameless = hostile_job(
        "nameless",
        labels={"a": "b"},
        pod_labels={**ours, "a": "b"},
        manualSelector=True,
        selector={"matchLabels": {"a": "b"}},
    )
    forged = [
        hostile_job(
            f"forged-{number}",
            {**ours, "mlflow-compute/run-id": run_id, "mlflow-compute/experiment-id": "zzz"},
        )
        for number, run_id in enumerate((one.run_id, finished))
    ]
    for item in (nameless, *forged):
        closed("apply", "-f", "-", stdin=json.dumps(item))
        closed("wait", "--for=condition=Failed", "--timeout=60s", f"job/{item['metadata']['name']}")
    MlflowClient().set_tag(one.run_id, "seen", "yes")
    other = submitted("true", image="Not A Name")
    wait_for(lambda: seen(other.run_id).cause == "InvalidImageName")
    MlflowClient().delete_tag(one.run_id, "seen")
    after = [MlflowClient().get_run(run_id).to_dictionary() for run_id in (one.run_id, finished)]
    assert [run["data"]["tags"] for run in after] == [run["data"]["tags"] for run in before]
    assert [run["info"]["status"] for run in after] == ["RUNNING", "FINISHED"]
    assert answers(f"{url}/healthz")
    MlflowClient().update_run(one.run_id, "KILLED")
    wait_for(lambda: not kubectl("get", "job", one.job_name, "--ignore-not-found"))


def hostile_job(name, labels, pod_labels=None, **spec):
    """A Job that fails at once and leaves a forged end in its termination message."""
    told = json.dumps(
        {"status": "KILLED", "cause": "Cancelled", "message": ["not", "a text"], "exit_code": "66"}
    )
    command = ["sh", "-c", f"echo '{told}' > /dev/termination-log; exit 1"]
    container = {
        "name": "run",
        "image": dev.RUNNER_IMAGE,
        "command": command,
        "imagePullPolicy": "IfNotPresent",
    }
    template = {
        "metadata": {"labels": pod_labels or labels},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    metadata = {"name": name, "labels": labels}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"backoffLimit": 0, "template": template, **spec},
    }
