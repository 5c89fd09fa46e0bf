"""One controller looks after several namespaces: one that cannot be read does not stop the others,
and is seen from outside.
"""

import pytest
from prometheus_client import generate_latest

from mlflow_backend.controller.control import Controller
from mlflow_backend.errors import ClusterError
from tests.bed.objects import MemoryNamespace, job, pod
from tests.bed.odd import OddServer
from tests.bed.runs import wait_for

FORBIDDEN = "namespace closed: cannot list Pods: forbidden"


@pytest.fixture
def started():
    """A function that starts a controller of these namespaces, with a tracking server that holds no
    run; it ends with the test.
    """
    namespaces = []
    with OddServer(b"{}") as server:

        def start(*items: MemoryNamespace) -> Controller:
            namespaces.extend(items)
            controller = Controller(items, server.uri)
            controller.start()
            return controller

        yield start
        for namespace in namespaces:
            namespace.closing.set()


def metrics(controller) -> list[str]:
    lines = generate_latest(controller.metrics.registry).decode().splitlines()
    return [
        line
        for line in lines
        if line.startswith(("mlflow_compute_namespace_readable{", "mlflow_compute_active_runs{"))
    ]


def test_one_namespace_that_cannot_be_read_does_not_stop_the_others(started, caplog):
    open_, closed = MemoryNamespace("open", "uid-1"), MemoryNamespace("closed", "uid-2")
    closed.refusal = ClusterError(FORBIDDEN)
    run = job("j", "r", ready=1)
    open_.add(run, pod(run), job("k", "s"))
    controller = started(open_, closed)
    wait_for(lambda: controller.is_ready)
    assert controller.is_healthy
    assert metrics(controller) == [
        'mlflow_compute_active_runs{namespace="open",state="waiting"} 1.0',
        'mlflow_compute_active_runs{namespace="open",state="running"} 1.0',
        'mlflow_compute_active_runs{namespace="closed",state="waiting"} 0.0',
        'mlflow_compute_active_runs{namespace="closed",state="running"} 0.0',
        'mlflow_compute_namespace_readable{namespace="open"} 1.0',
        'mlflow_compute_namespace_readable{namespace="closed"} 0.0',
    ]
    said = [record.getMessage() for record in caplog.records if "closed" in record.getMessage()]
    assert f"namespace closed: could not read, retrying: {FORBIDDEN}" in said
    closed.refusal = None
    wait_for(
        lambda: 'mlflow_compute_namespace_readable{namespace="closed"} 1.0' in metrics(controller)
    )
    assert controller.is_healthy and controller.is_ready


def test_a_controller_that_can_read_nothing_is_not_ready(started):
    closed = MemoryNamespace("closed", "uid")
    closed.refusal = ClusterError(FORBIDDEN)
    controller = started(closed)
    wait_for(
        lambda: (
            closed.calls["list Pods"]
            and closed.calls["list Jobs"]
            and controller.namespaces["closed"].has_failed
        )
    )
    assert controller.is_healthy and not controller.is_ready


def test_a_replica_that_does_not_lead_says_nothing_of_namespaces():
    controller = Controller([MemoryNamespace("n")], "http://127.0.0.1:9")
    assert not [line for line in metrics(controller) if "readable" in line]


def test_a_run_belongs_to_the_namespace_of_its_job_alone():
    first, second = MemoryNamespace("first", "uid-1"), MemoryNamespace("second", "uid-2")
    controller = Controller([first, second], "http://127.0.0.1:9")
    same = job("same", "r", uid="uid-of-the-first")
    controller.namespaces["first"].take("Job", "ADDED", same)
    controller.namespaces["second"].take("Job", "ADDED", job("same", "r", uid="uid-of-the-second"))
    controller.namespaces["first"].take("Job", "DELETED", same)
    assert [name for name, namespace in controller.namespaces.items() if namespace.active()] == [
        "second"
    ]
