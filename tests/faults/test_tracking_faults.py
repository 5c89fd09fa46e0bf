"""What happens to the tracking server, or to the way there."""

import time

import pytest

from tests.bed.runs import Seen, wait_for
from tests.faults.fixtures import SYSTEM
from tests.faults.watched import COMMAND, CONTROLLER

LINES = "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 1; done"


def whole(started):
    for watched in started:
        log = Seen(watched.id).log
        assert all(b"line %d\n" % number in log for number in range(1, 9)), log


def told_running(started):
    for watched in started:
        wait_for(lambda one=watched: b"line 1\n" in Seen(one.id).log, timeout_s=60)


def test_the_server_is_killed_and_comes_back(faults, server, kubectl):
    """It is away while the commands end: the pods go on telling, the client goes on asking, the
    controller goes on looking.
    """
    started = faults.start(LINES)
    told_running(started)
    server.stop()
    time.sleep(10)
    server.start()
    faults.check(
        "tracking server killed, back after the command's end",
        started,
        "FINISHED",
        None,
        timed=False,
    )
    whole(started)


def test_a_pod_killed_while_the_server_is_away(faults, server, kubectl):
    """The tracking server cannot be told at that moment; the process that looks later tells it."""
    started = faults.start("echo line 1; sleep 600")
    told_running(started)
    server.stop()
    for watched in started:
        kubectl(
            "-n",
            watched.namespace,
            "delete",
            "job",
            watched.run.job_name,
            "--wait=false",
            "--grace-period=0",
            "--force",
        )
    time.sleep(5)
    server.start()
    faults.check(
        "Job deleted while the tracking server is away", started, "KILLED", "Deleted", timed=False
    )


def test_the_way_of_the_pods_is_cut_for_a_while(faults, proxy):
    started = faults.start(LINES, tracking_uri=proxy.uri)
    told_running(started)
    proxy.mode = "cut"
    time.sleep(5)
    proxy.mode = "open"
    faults.check(
        "network from pods to the tracking server cut for a while", started, "FINISHED", None
    )
    whole(started)


def test_a_slow_server(faults, proxy):
    proxy.mode = "slow"
    faults.check(
        "tracking server slow (1.5 s a request)",
        faults.start(LINES, tracking_uri=proxy.uri),
        "FINISHED",
        None,
    )


@pytest.mark.parametrize("command", ["sleep 600", "true"])
def test_a_login_that_is_refused(faults, proxy, command):
    """The client's own login is good: it and the controller can tell what the pod could not."""
    proxy.mode = "refuse"
    started = faults.start(command, tracking_uri=proxy.uri)
    faults.check(f"401 from the tracking server ({command})", started, "FAILED", "TrackingError")
    assert all("401" in Seen(watched.id).tags["compute.message"] for watched in started)


def test_the_controller_is_restarted_meanwhile(faults, kubectl, controlled):
    """What is told already stays as it is; what ends meanwhile is settled afterwards
    (skypilot#10061).
    """
    before = faults.start("exit 3", watchers=[CONTROLLER, COMMAND])
    later = faults.start("sleep 600", watchers=[CONTROLLER])
    wait_for(lambda: Seen(later[0].id).status == "RUNNING", timeout_s=60)
    kubectl("-n", SYSTEM, "rollout", "restart", "deployment/mlflow-compute-controller")
    kubectl("-n", controlled, "delete", "job", later[0].run.job_name, "--wait=false")
    faults.check("controller restarted, run told before", before, "FAILED", "ExitCode", timed=False)
    faults.check(
        "controller restarted, Job deleted meanwhile", later, "KILLED", "Deleted", timed=False
    )
    kubectl(
        "-n",
        SYSTEM,
        "rollout",
        "status",
        "deployment/mlflow-compute-controller",
        "--timeout=60s",
    )
    assert Seen(before[0].id).cause == "ExitCode"


def test_a_client_that_waits_for_a_run_that_a_user_marked(faults):
    """MLflow's own word: KILLED, set while the client waits and a controller looks."""
    from mlflow.tracking import MlflowClient

    started = faults.start("sleep 600", watchers=[CONTROLLER])
    wait_for(lambda: Seen(started[0].id).status == "RUNNING", timeout_s=60)
    MlflowClient().update_run(started[0].id, "KILLED")
    faults.check("marked KILLED in MLflow", started, "KILLED", "Cancelled", timed=False)
