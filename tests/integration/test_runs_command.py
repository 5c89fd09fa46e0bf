"""`mlflow-compute runs|wait|cancel|logs|settle`, as typed where no client waits for the run any
more.
"""

import json
import subprocess
import time

import pytest
from mlflow.tracking import MlflowClient

from tests.bed.runs import HERE, THERE, UNTIL_TOLD, wait_for
from tests.bed.runs import run_here as run_here
from tests.bed.runs import run_there as run
from tests.bed.server import BIN
from tests.cluster import dev


def command(*arguments, code=0):
    done = subprocess.run(
        [BIN / "mlflow-compute", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def submitted(cluster, project):
    """A function that submits a command and does not wait for it; the run's id."""

    def submit(text, files=None, **config):
        return run(
            project(text, **(files or {})),
            {**THERE, "STREAM_OUTPUT": False, **config},
            synchronous=False,
        ).run_id

    return submit


def test_a_run_without_a_client_is_waited_for_and_its_log_is_there_after_its_pod(
    submitted, seen, kubectl
):
    run_id = submitted("echo line one; python s.py", {"s_dot_py": UNTIL_TOLD})
    with subprocess.Popen(
        [BIN / "mlflow-compute", "wait", run_id], stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout.readline() == "line one\n"
        MlflowClient().set_tag(run_id, "told", "yes")
        assert "out\n" in waiting.communicate(timeout=120)[0]
    kubectl("delete", "job", seen(run_id).tags["compute.job"])
    assert command("logs", run_id).stdout.startswith("line one\nout\n")
    assert "FINISHED" in command("wait", run_id).stderr


def test_wait_exits_as_the_run_did(submitted):
    failing = submitted("sleep 1; exit 3")
    assert "FAILED, ExitCode" in command("wait", failing, code=1).stderr
    assert "FAILED, ExitCode" in command("wait", failing, "--no-logs", code=1).stderr


def test_runs_lists_what_has_not_ended(submitted, seen):
    run_id = submitted("sleep 600")
    wait_for(lambda: seen(run_id).status == "RUNNING")
    listed = json.loads(command("runs", "--json", "--experiment", "Default").stdout)
    (mine,) = [item for item in listed if item["run_id"] == run_id]
    assert (mine["status"], mine["target"], mine["cause"]) == ("RUNNING", "dev-cluster", None)
    assert run_id in command("runs").stdout
    assert command("cancel", run_id).stdout.startswith("KILLED, Cancelled")
    assert run_id not in command("runs").stdout and run_id in command("runs", "--all").stdout


def test_cancel_from_elsewhere_kills_the_run_and_removes_the_pod(submitted, seen, kubectl):
    run_id = submitted("trap 'echo stopping; exit 5' TERM; echo begun; sleep 600 & wait")
    wait_for(lambda: b"begun" in seen(run_id).log)
    command("cancel", run_id)
    assert (seen(run_id).status, seen(run_id).cause) == ("KILLED", "Cancelled")
    assert not kubectl("get", "pods", "-l", f"mlflow-compute/run-id={run_id}", "-o", "name")
    assert b"stopping" in seen(run_id).log


def test_a_job_that_was_deleted_unseen_is_settled_and_a_listing_leaves_it(submitted, seen, kubectl):
    run_id = submitted("sleep 600")
    wait_for(lambda: seen(run_id).status == "RUNNING")
    kubectl("delete", "job", seen(run_id).tags["compute.job"], "--grace-period=0", "--force")
    wait_for(
        lambda: not kubectl("get", "pods", "-l", f"mlflow-compute/run-id={run_id}", "-o", "name")
    )
    before = seen(run_id).run.to_dictionary()
    command("runs")
    command("logs", run_id)
    assert seen(run_id).run.to_dictionary() == before, "a command that shows changes nothing"
    changed = before["info"]["status"]
    command("settle", run_id)
    assert (seen(run_id).status, seen(run_id).cause) == ("KILLED", "Deleted"), changed
    before = seen(run_id).run.to_dictionary()
    command("settle")
    assert seen(run_id).run.to_dictionary() == before, "settling twice changes nothing"


def test_a_log_is_followed_to_its_end_and_nothing_else_happens(submitted, seen):
    run_id = submitted("echo one; sleep 3; echo two; exit 3")
    shown = command("logs", "--follow", run_id).stdout.splitlines()
    assert [line for line in shown if not line.startswith("[mlflow-compute]")] == ["one", "two"]
    wait_for(lambda: seen(run_id).status == "FAILED")
    assert seen(run_id).cause == "ExitCode"


def test_a_run_deleted_in_mlflow_is_cancelled(submitted, seen, kubectl):
    run_id = submitted("sleep 600")
    wait_for(lambda: seen(run_id).status == "RUNNING")
    job = seen(run_id).tags["compute.job"]
    MlflowClient().delete_run(run_id)
    assert command("cancel", run_id).stdout == f"deleted in MLflow, its Job {job} is deleted too\n"
    assert not kubectl("get", "job", job, "--ignore-not-found")


def test_all_runs_are_settled_before_they_are_listed_if_asked(submitted, seen, kubectl):
    run_id = submitted("sleep 600")
    wait_for(lambda: seen(run_id).status == "RUNNING")
    kubectl("delete", "job", seen(run_id).tags["compute.job"], "--grace-period=0", "--force")
    wait_for(
        lambda: not kubectl("get", "pods", "-l", f"mlflow-compute/run-id={run_id}", "-o", "name")
    )
    (mine,) = [
        run
        for run in json.loads(command("runs", "--settle", "--json").stdout)
        if run["run_id"] == run_id
    ]
    assert (mine["status"], mine["cause"]) == ("KILLED", "Deleted")


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"compute.context": "of-a-colleague"}, "has no context 'of-a-colleague'"),
        (
            {"compute.cluster": "00000000-0000-0000-0000-000000000000"},
            "is not the cluster that run",
        ),
    ],
)
def test_a_run_of_another_cluster_is_left_alone_and_is_no_failure_unless_it_is_named(
    cluster, cluster_access, kubectl, tags, words
):
    uid = kubectl("get", "namespace", dev.NAMESPACE, "-o", "jsonpath={.metadata.uid}")
    here = {
        "compute.job": "j",
        "compute.namespace": dev.NAMESPACE,
        "compute.context": cluster_access.context,
        "compute.cluster": uid,
    }
    run_id = MlflowClient().create_run("0", tags=here | tags).info.run_id
    try:
        assert "1 skipped: " in (said := command("settle").stderr) and words in said
        assert "1 skipped: " in command("runs", "--settle").stderr
        said = command("settle", run_id, code=1).stderr
        assert said.startswith("1 not settled: ") and words in said
    finally:
        MlflowClient().set_terminated(run_id, "KILLED")


def test_a_start_timeout_holds_without_a_client(cluster, submitted, seen):
    cluster(resources={"cpu": 4000})
    patient, hasty = submitted("true", start_timeout=86400), submitted("true", start_timeout=1)
    wait_for(lambda: command("settle", patient, hasty) and seen(hasty).status == "FAILED")
    assert seen(hasty).cause == "Unschedulable"
    assert (seen(patient).status, seen(patient).cause) == ("SCHEDULED", None)


def test_a_submit_that_broke_off_is_settled_once_it_cannot_be_under_way(
    cluster, seen, cluster_access, kubectl
):
    client = MlflowClient()
    uid = kubectl("get", "namespace", dev.NAMESPACE, "-o", "jsonpath={.metadata.uid}")
    tags = {
        "compute.job": "never-made",
        "compute.namespace": dev.NAMESPACE,
        "compute.context": cluster_access.context,
        "compute.cluster": uid,
    }
    young = client.create_run("0", tags=tags).info.run_id
    old = client.create_run("0", start_time=int((time.time() - 300) * 1000), tags=tags).info.run_id
    command("settle", young, old)
    assert seen(young).status == "RUNNING"
    assert (seen(old).status, seen(old).cause) == ("FAILED", "SubmitError")
    client.set_terminated(young, "FAILED")


def test_settling_a_live_run_changes_nothing(submitted, seen):
    run_id = submitted("sleep 4")
    while seen(run_id).status != "FINISHED":
        command("settle", run_id)
        assert seen(run_id).status in ("SCHEDULED", "RUNNING", "FINISHED")
    command("settle", run_id)
    assert (seen(run_id).status, seen(run_id).cause) == ("FINISHED", None)


def test_a_run_that_is_not_there_or_of_no_cluster_is_named(server, project):
    assert "Error: run 0123: " in command("wait", "0123", code=1).stderr
    here = run_here(project("true"), HERE).run_id
    assert f"run {here}: was not sent to a cluster" in command("cancel", here, code=1).stderr
    assert (
        "there is no experiment of this name: did you mean 'Default'?"
        in command("runs", "--experiment", "Defalt", code=1).stderr
    )
