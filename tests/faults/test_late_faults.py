"""What goes wrong for a moment only, at the submit or long after it: the run goes on."""

import os
import socket
import subprocess
import threading
import time
import uuid

import pytest

from mlflow_backend.places.kubernetes.diagnose.start import CANNOT_START
from tests.bed.api_proxy import ApiProxy
from tests.bed.apiserver import write_kubeconfig
from tests.bed.runs import wait_for
from tests.cluster import dev
from tests.faults.watched import CLIENT, CONTROLLER

REGISTRY_PORT = 5000


@pytest.fixture
def throttled(cluster_access, tmp_path, monkeypatch):
    """An API server that refuses a call when it is told to; `context` leads to it."""
    proxy = ApiProxy(
        [
            cluster_access.kubectl,
            "--kubeconfig",
            cluster_access.kubeconfig,
            "--context",
            cluster_access.context,
        ]
    )
    # a client keeps its connection to a context
    proxy.context = f"throttled-{uuid.uuid4().hex[:8]}"
    path = write_kubeconfig(
        tmp_path / "throttled.kubeconfig",
        name=proxy.context,
        current=None,
        user={},
        server=proxy.url,
    )
    monkeypatch.setenv("KUBECONFIG", f"{os.environ['KUBECONFIG']}{os.pathsep}{path}")
    yield proxy
    proxy.close()


@pytest.mark.parametrize("status", [429, 503])
def test_an_api_server_with_too_much_to_do_at_the_submit(faults, throttled, status):
    """The calls are made again after the time that it names."""
    throttled.refusals = [status] * 3
    started = faults.start("exit 3", watchers=[CLIENT, CONTROLLER], context=throttled.context)
    assert throttled.refusals == []
    faults.check(f"API server answers {status} at the submit", started, "FAILED", "ExitCode")


class Forwarder:
    """Leads a port that was closed before to the cluster's registry."""

    def __init__(self, port: int):
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", REGISTRY_PORT))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source, sink):
        while block := source.recv(65536):
            sink.sendall(block)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def image(cluster_access, node, monkeypatch):
    """The runner's image in the cluster's registry under a name of its own; the name without the
    registry.
    """
    monkeypatch.setenv("DOCKER_HOST", cluster_access.docker_host)
    name = f"late:{uuid.uuid4().hex[:8]}"
    for command in (
        ["tag", dev.RUNNER_IMAGE, f"localhost:{REGISTRY_PORT}/{name}"],
        ["push", f"localhost:{REGISTRY_PORT}/{name}"],
    ):
        subprocess.run(["docker", *command], check=True, capture_output=True)
    return name


def test_a_pod_that_waited_long_for_a_node_and_then_meets_a_pull_error(faults, kubectl, image):
    """As with an autoscaler: the patience with an image counts from its own trouble, not from the
    pod's creation.
    """
    patience_s = CANNOT_START["ErrImagePull"][1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = faults.start(
        "exit 3", image=f"localhost:{port}/{image}", node_selector={"late": "yes"}
    )
    (name,) = kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
    time.sleep(patience_s + 10)
    kubectl("label", "node", name, "late=yes")
    registry = None
    try:
        for watched in started:
            wait_for(lambda one=watched: _is_refused(one.pods(kubectl)[-1]))
        registry = Forwarder(port)
        faults.check(
            "waited long for a node, then one pull error",
            started,
            "FAILED",
            "ExitCode",
            timeout_s=150,
        )
    finally:
        kubectl("label", "node", name, "late-")
        if registry:
            registry.close()


def _is_refused(pod) -> bool:
    states = [
        status["state"].get("waiting", {}) for status in pod["status"].get("containerStatuses", ())
    ]
    return any(state.get("reason") in ("ErrImagePull", "ImagePullBackOff") for state in states)
