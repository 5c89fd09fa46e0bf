"""The controller beside runs that nobody waits for."""

import os
import signal
import socket
import subprocess
import urllib.request

import pytest
from mlflow.tracking import MlflowClient

from tests.bed.runs import THERE, wait_for
from tests.bed.runs import run_there as run
from tests.bed.server import BIN
from tests.cluster import dev

NAMESPACE = "mlflow-controlled"
"""Where no other controller has the Lease."""


@pytest.fixture
def kubectl(kubectl, cluster_access):
    dev.add_namespace(cluster_access, NAMESPACE)
    yield lambda *arguments, **keywords: kubectl("--namespace", NAMESPACE, *arguments, **keywords)


@pytest.fixture
def controller(cluster, server):
    """A function that starts `mlflow-compute controller` as a process here; its base URL and the process."""
    cluster(namespace=NAMESPACE)
    started = []

    def start():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [BIN / "mlflow-compute", "controller", "--namespace", NAMESPACE, "--port", str(port)]
        process = subprocess.Popen(command, env={**os.environ, "MLFLOW_TRACKING_URI": server.uri}, stderr=subprocess.PIPE, text=True)
        started.append(process)
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), timeout_s=30)
        return f"http://127.0.0.1:{port}", process

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


@pytest.fixture
def submitted(cluster, project):
    def submit(text, **config):
        return run(project(text), {**THERE, "STREAM_OUTPUT": False, **config}, synchronous=False)

    return submit


def test_a_deleted_job_is_settled_by_nobody_but_the_controller(controller, submitted, seen, kubectl):
    url, _ = controller()
    one = submitted("sleep 600")
    wait_for(lambda: seen(one.run_id).status == "RUNNING")
    kubectl("delete", "job", one.job_name)
    wait_for(lambda: (seen(one.run_id).status, seen(one.run_id).cause) == ("KILLED", "Deleted"), timeout_s=30)
    counted = 'mlflow_compute_settled_runs_total{cause="Deleted",status="KILLED"} 1.0'
    wait_for(lambda: counted in urllib.request.urlopen(f"{url}/metrics").read().decode())


def test_a_run_marked_killed_in_mlflow_loses_its_job_and_keeps_its_last_lines(controller, submitted, seen, kubectl):
    controller()
    one = submitted("trap 'echo saving; exit 0' TERM; echo begun; sleep 600 & wait")
    wait_for(lambda: b"begun" in seen(one.run_id).log)
    MlflowClient().update_run(one.run_id, "KILLED")
    wait_for(lambda: not kubectl("get", "job", one.job_name, "--ignore-not-found"), timeout_s=30)
    wait_for(lambda: not kubectl("get", "pods", "-l", f"job-name={one.job_name}", "-o", "name"), timeout_s=60)
    found = seen(one.run_id)
    assert (found.status, found.cause) == ("KILLED", "Cancelled") and b"saving\n" in found.log


def test_what_happened_while_no_controller_was_there_is_settled_when_it_comes(controller, submitted, seen, kubectl):
    deleted, bad = submitted("sleep 600"), submitted("true", image="Not A Name")
    wait_for(lambda: seen(deleted.run_id).status == "RUNNING")
    kubectl("delete", "job", deleted.job_name, "--grace-period=0", "--force")
    controller()
    wait_for(lambda: (seen(deleted.run_id).status, seen(deleted.run_id).cause) == ("KILLED", "Deleted"), timeout_s=60)
    wait_for(lambda: (seen(bad.run_id).status, seen(bad.run_id).cause) == ("FAILED", "InvalidImageName"), timeout_s=30)


def test_of_two_replicas_one_leads_and_the_other_takes_over_when_it_ends(controller, submitted, seen, kubectl):
    _, first = controller()
    _, second = controller()
    holder = kubectl("get", "lease", "mlflow-compute-controller", "-o", "jsonpath={.spec.holderIdentity}")
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=20)
    wait_for(lambda: kubectl("get", "lease", "mlflow-compute-controller", "-o", "jsonpath={.spec.holderIdentity}") not in ("", holder))
    one = submitted("true", image="Not A Name")
    wait_for(lambda: seen(one.run_id).cause == "InvalidImageName", timeout_s=30)


def test_a_controller_beside_a_live_run_changes_nothing(controller, submitted, seen):
    controller()
    one = submitted("sleep 3; exit 4")
    wait_for(lambda: seen(one.run_id).status == "FAILED", timeout_s=60)
    assert (seen(one.run_id).cause, seen(one.run_id).tags["compute.exit_code"]) == ("ExitCode", "4")
