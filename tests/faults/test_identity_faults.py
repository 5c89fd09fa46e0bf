"""Whose run it is: deleted runs, continued runs, forged Jobs, several clients, clocks that differ,
logins that change.
"""

import json
import subprocess
import threading
import time as clock

import pytest
from mlflow.tracking import MlflowClient

from mlflow_backend.places.kubernetes import wait
from mlflow_backend.places.kubernetes.client import connection
from tests.bed.runs import THERE, Seen, run_there, wait_for
from tests.bed.server import BIN
from tests.cluster import dev
from tests.faults.fixtures import CONTROLLED
from tests.faults.watched import CLIENT, COMMAND, CONTROLLER, begin, command

SLEEP = "echo begun; sleep 600"


def running(started):
    for watched in started:
        wait_for(lambda one=watched: b"begun" in Seen(one.id).log, timeout_s=90)


def test_a_run_that_is_deleted_in_mlflow_is_a_cancelled_one(faults, kubectl, table):
    """MLflow takes no status for it any more; what counts is that its pod stops and that those who
    wait are told.
    """
    started = faults.start(SLEEP)
    running(started)
    for watched in started:
        MlflowClient().delete_run(watched.id)
    for watched in started:
        if watched.watcher == COMMAND:
            assert command("cancel", watched.id).returncode == 0
        wait_for(
            lambda one=watched: all(
                pod["status"]["phase"] != "Running" for pod in one.pods(kubectl)
            ),
            timeout_s=90,
        )
        if watched.waiting:
            watched.waiting.join(60)
            assert watched.returned is False
        assert Seen(watched.id).run.info.lifecycle_stage == "deleted"
        table.rows.append(
            ("run deleted in MLflow while it runs", watched.watcher, "(deleted)", "", None)
        )


@pytest.mark.parametrize("watcher", [CLIENT, CONTROLLER])
def test_the_old_job_of_a_continued_run_is_deleted(faults, kubectl, watcher):
    namespace = CONTROLLED if watcher == CONTROLLER else dev.NAMESPACE
    root = faults.prepare(watcher, "sh again.sh")
    (root / "again.sh").write_text("echo begun; exit 3\n")
    first = begin(watcher, run_there(root, synchronous=False), namespace)
    wait_for(lambda: Seen(first.id).cause == "ExitCode", timeout_s=60)
    old = Seen(first.id).tags["compute.job"]
    (root / "again.sh").write_text("echo begun again; sleep 15\n")
    second = begin(
        watcher, run_there(root, {**THERE, "RUN_ID": first.id}, synchronous=False), namespace
    )
    wait_for(lambda: b"begun again" in Seen(first.id).log, timeout_s=60)
    kubectl("-n", namespace, "delete", "job", old)
    faults.check("old Job of a continued run deleted", [second], "FINISHED", None, timed=False)


def forged(name, run_id, image):
    """A Job of another submitter that claims a run which is not its own, and leaves an end in its
    termination message.
    """
    end = json.dumps(
        {
            "status": "KILLED",
            "cause": "Cancelled",
            "message": "forged",
            "exit_code": 66,
            "reported": False,
        }
    )
    labels = {"app.kubernetes.io/managed-by": "mlflow-compute", "mlflow-compute/run-id": run_id}
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "run", "image": image, "securityContext": restricted,
                 "command": ["sh", "-c", f"echo '{end}' > /dev/termination-log; exit 66"]}  # fmt: skip
    pod = {"restartPolicy": "Never", "containers": [container],
           "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}}  # fmt: skip
    spec = {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }


def test_a_job_that_claims_runs_of_others_changes_none(faults, kubectl, table):
    """By an administrator, whom no policy stops: a run that goes on, one that has ended, and one
    that never had a Job.
    """
    started = faults.start("echo begun; sleep 20", watchers=[CONTROLLER])
    ended, plain = (
        MlflowClient().create_run("0").info.run_id,
        MlflowClient().create_run("0").info.run_id,
    )
    MlflowClient().set_terminated(ended, "FINISHED")
    running(started)
    victims = [started[0].id, ended, plain]
    for run_id in victims:
        name = f"forged-{run_id[:8]}-0123456789"
        kubectl(
            "-n",
            CONTROLLED,
            "create",
            "-f",
            "-",
            stdin=json.dumps(forged(name, run_id, dev.RUNNER_IMAGE)),
        )
        kubectl("-n", CONTROLLED, "wait", "--for=condition=Failed", f"job/{name}", "--timeout=60s")
    faults.check("Job of others that claims the run", started, "FINISHED", None, timed=False)
    assert [Seen(run_id).status for run_id in victims] == ["FINISHED", "FINISHED", "RUNNING"]
    assert not any("compute.cause" in Seen(run_id).tags for run_id in victims)
    MlflowClient().set_terminated(plain, "FINISHED")


def test_two_clients_wait_for_one_run(faults, kubectl):
    started = faults.start(SLEEP, watchers=[CLIENT])
    running(started)
    second = subprocess.Popen(
        [BIN / "mlflow-compute", "wait", started[0].id],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in second.stdout:
        if line == "begun\n":
            break
    kubectl("-n", started[0].namespace, "delete", "job", started[0].run.job_name, "--wait=false")
    faults.check("two clients wait, Job deleted", started, "KILLED", "Deleted", timed=False)
    err = second.communicate(timeout=60)[1]
    assert second.returncode == 1 and "KILLED, Deleted" in err and "Traceback" not in err


class Clock:
    """The module `time` as a client with a wrong clock has it."""

    def __init__(self, offset_s):
        self._offset_s = offset_s

    def time(self):
        return clock.time() + self._offset_s

    def __getattr__(self, name):
        return getattr(clock, name)


@pytest.mark.parametrize("offset_s", [-300, 300])
def test_a_client_whose_clock_is_five_minutes_off(faults, monkeypatch, capfd, offset_s):
    for module in (connection, wait):
        monkeypatch.setattr(module, "time", Clock(offset_s))
    started = faults.start(
        "for i in 1 2 3 4 5 6; do echo line $i; sleep 1; done; exit 3", watchers=[CLIENT]
    )
    faults.check(f"client's clock {offset_s // 60:+d} minutes", started, "FAILED", "ExitCode")
    shown = capfd.readouterr().out
    assert [shown.count(f"line {number}\n") for number in range(1, 7)] == [1] * 6


@pytest.fixture
def secret(kubectl, controlled):
    """A Secret `team` with these values in both namespaces, which let runs name it
    (`dev.ALLOWED_SECRETS`).
    """

    def make(**values):
        for namespace in (dev.NAMESPACE, controlled):
            item = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "team"},
                "stringData": values,
            }
            kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(item))

    yield make
    for namespace in (dev.NAMESPACE, controlled):
        kubectl("-n", namespace, "delete", "secret", "team", "--ignore-not-found")


def test_a_token_that_ends_with_a_newline(faults, secret, proxy):
    """As `kubectl create secret --from-file` makes it."""
    secret(MLFLOW_TRACKING_TOKEN="correct-horse\n")
    started = faults.start("true", tracking_uri=proxy.uri, secret="team")
    faults.check("token with a newline at its end", started, "FINISHED", None)
    assert {
        call.headers.get("Authorization")
        for call in proxy.calls
        if call.headers.get("Authorization")
    } == {"Bearer correct-horse"}


def test_a_token_with_a_control_character(faults, secret, kubectl):
    secret(MLFLOW_TRACKING_TOKEN="correct\nhorse")
    started = faults.start("sleep 600", secret="team")
    faults.check("token with a control character in it", started, "FAILED", "TrackingError")
    for watched in started:
        everything = json.dumps(Seen(watched.id).tags) + json.dumps(watched.pods(kubectl))
        assert "horse" not in everything


def test_a_login_that_expires_while_the_command_runs(faults, proxy):
    """It was accepted once, so the command goes on; a login that works again tells the end."""
    started = faults.start("echo begun; sleep 6; exit 3", tracking_uri=proxy.uri)
    running(started)
    proxy.runner = "refuse"
    threading.Timer(10, lambda: setattr(proxy, "runner", None)).start()
    faults.check(
        "login expired during the run, then renewed", started, "FAILED", "ExitCode", timed=False
    )
