"""The places where faults are made: a namespace without a controller, one with it, and who watches
in each.
"""

import itertools
import os
import time
from pathlib import Path

import pytest

from mlflow_backend.places.kubernetes.run import ClusterRun
from tests.bed.runs import run_there
from tests.cluster import dev
from tests.faults.watched import (
    COMMAND,
    CONTROLLER,
    LIMIT_S,
    WATCHERS,
    Ends,
    Table,
    Watched,
    begin,
    finish,
)

CONTROLLED, SYSTEM = "mlflow-faults", "mlflow-faults-system"
"""The namespace of runs with a controller, and that of its controller."""


@pytest.fixture(scope="session")
def table(request):
    """Collects the cases; written where `--faults-table` says."""
    table = Table()
    yield table
    path = request.config.getoption("--faults-table", default=None)
    if path:
        table.write(Path(path))


@pytest.fixture(scope="session")
def controlled(cluster_access, shared_server):
    """The namespace whose runs the Deployment of k8s/controller settles, with the tests' server;
    its name.
    """
    if not cluster_access.host:
        pytest.skip("a controller on this cluster cannot reach a server on this machine")
    dev.add_namespace(cluster_access, CONTROLLED, SYSTEM)
    dev.add_controller(
        cluster_access, SYSTEM, CONTROLLED, f"http://{cluster_access.host}:{shared_server.port}"
    )
    return CONTROLLED


@pytest.fixture(scope="session")
def ends(cluster_access):
    ends = Ends(
        [
            cluster_access.kubectl,
            "--kubeconfig",
            cluster_access.kubeconfig,
            "--context",
            cluster_access.context,
        ]
    )
    yield ends
    ends.close()


@pytest.fixture
def faults(cluster, controlled, kubectl, project, ends, table):
    """See `Faults`."""
    faults = Faults(cluster, controlled, project, ends, table)
    yield faults
    for namespace in (dev.NAMESPACE, controlled):
        kubectl("-n", namespace, "delete", "jobs", "--all", "--wait=false")


class Faults:
    """Starts one run per watcher, and says what became of them."""

    def __init__(self, set_target, controlled, project, ends, table):
        self._set_target, self._controlled, self._project = set_target, controlled, project
        self._ends, self._table = ends, table
        self._names = itertools.count()

    def prepare(self, watcher: str, command: str, files=None, **target) -> Path:
        """A project of its own with `command`, and the target where `watcher` looks; its folder."""
        namespace = self._controlled if watcher == CONTROLLER else dev.NAMESPACE
        self._set_target(namespace=namespace, grace_period=10, **target)
        return self._project(command, name=f"fault-{next(self._names)}", **(files or {}))

    def submit(self, watcher: str, command: str, files=None, **target) -> ClusterRun:
        root = self.prepare(watcher, command, files, **target)
        return run_there(
            root, {"COMPUTE": "dev-cluster", "STREAM_OUTPUT": watcher != COMMAND}, synchronous=False
        )

    def start(self, command: str, watchers=WATCHERS, **target) -> list[Watched]:
        started = []
        for watcher in watchers:
            run = self.submit(watcher, command, **target)
            started.append(
                begin(watcher, run, self._controlled if watcher == CONTROLLER else dev.NAMESPACE)
            )
        return started

    def check(
        self,
        fault: str,
        started: list[Watched],
        status: str,
        cause: str | None,
        timeout_s: float = 90,
        timed=True,
    ) -> None:
        """Each run has come to this end, in time, whichever process watched."""
        for watched in started:
            found = finish(watched, timeout_s)
            after_s = self._after(watched, found) if timed else None
            self._table.add(fault, watched.watcher, found, after_s)
            assert (found.status, found.cause) == (status, cause), (watched.watcher, found.tags)
            assert watched.returned in (None, status == "FINISHED")
            if after_s is not None and watched.watcher != COMMAND:
                assert after_s <= LIMIT_S, (
                    f"{watched.watcher}: {after_s:.1f} s after the end of its Job"
                )

    def _after(self, watched: Watched, found) -> float | None:
        for _ in range(100):  # the Job's own end may be seen later than the run's
            if watched.run.job_name in self._ends.at:
                return found.run.info.end_time / 1000 - self._ends.at[watched.run.job_name]
            time.sleep(0.1)
        return None


@pytest.fixture
def node(cluster_access):
    """The daemons of the cluster that is built here; on others they cannot be stopped."""
    if not cluster_access.base_image or os.sep not in cluster_access.kubectl:
        pytest.skip("needs the cluster that is built on this machine: its daemons are stopped")
    from tests.cluster.debian import node

    yield node
    node.revive()


@pytest.fixture
def proxy(shared_server, cluster_access):
    """The tests' server by a way that can be cut; `uri` is its address for pods."""
    from tests.bed.proxy import Proxy

    proxy = Proxy(shared_server.port)
    proxy.uri = f"http://{cluster_access.host}:{proxy.port}"
    yield proxy
    proxy.close()
