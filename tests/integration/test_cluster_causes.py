"""Why runs fail on the real cluster: each fault made for real, and the cause that the run ends with."""

import json

import pytest

from tests.bed.runs import failed_run_there as failed_run

EAT = "x = bytearray(200_000_000)"


def test_a_child_killed_for_memory_is_no_plain_exit_code(cluster, project, last_run):
    cluster(resources={"memory": "96Mi"})
    script = f'import subprocess, sys; sys.exit(subprocess.run([sys.executable, "-c", "{EAT}"]).returncode and 1)'
    found = failed_run(project("python s.py", s_dot_py=script), last_run)
    assert (found.status, found.cause, found.tags["compute.exit_code"]) == ("FAILED", "OOMKilled", "1")
    assert "resources.memory" in found.tags["compute.message"]


def test_the_command_itself_killed_for_memory(cluster, project, last_run):
    cluster(resources={"memory": "96Mi"})
    found = failed_run(project(f"python -c '{EAT}'"), last_run)
    assert (found.status, found.cause) == ("FAILED", "OOMKilled")


def test_an_exit_code_of_137_alone_is_no_proof_of_memory(cluster, project, last_run):
    found = failed_run(project("kill -9 $$"), last_run)
    assert (found.cause, found.tags["compute.exit_code"]) == ("ExitCode", "137")


def test_a_run_that_no_node_takes_fails_after_its_start_timeout(cluster, project, last_run, capfd, kubectl):
    cluster(resources={"cpu": 4000}, start_timeout=4)
    found = failed_run(project("true"), last_run)
    assert (found.status, found.cause) == ("FAILED", "Unschedulable")
    assert "Insufficient cpu" in found.tags["compute.message"] and "asks for cpu 4k" in found.tags["compute.message"]
    assert "waiting: no node takes the pod" in capfd.readouterr().err
    assert found.tags["compute.job"] not in kubectl("get", "jobs", "-o", "name")


@pytest.fixture
def quota(kubectl):
    text = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "test"}, "spec": {"hard": {"requests.cpu": "1m"}}}
    kubectl("apply", "-f", "-", stdin=json.dumps(text))
    yield
    kubectl("delete", "resourcequota", "test")


def test_a_quota_that_is_used_up_is_named(cluster, project, last_run, quota):
    cluster(resources={"cpu": "100m"}, start_timeout=6)
    found = failed_run(project("true"), last_run)
    assert (found.status, found.cause) == ("FAILED", "QuotaExceeded") and "exceeded quota: test" in found.tags["compute.message"]


def test_a_pod_that_pod_security_refuses(cluster, project, last_run):
    cluster(pod_template={"spec": {"hostPID": True}}, start_timeout=6)
    found = failed_run(project("true"), last_run)
    assert (found.status, found.cause) == ("FAILED", "AdmissionDenied") and "host namespaces" in found.tags["compute.message"]


def test_a_volume_that_cannot_be_mounted(cluster, project, last_run):
    template = {"spec": {"volumes": [{"name": "tmp", "emptyDir": None, "secret": {"secretName": "not-there"}}]}}
    cluster(pod_template=template, start_timeout=6)
    found = failed_run(project("true"), last_run)
    assert (found.status, found.cause) == ("FAILED", "VolumeError") and "not-there" in found.tags["compute.message"]
