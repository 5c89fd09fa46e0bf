"""Fixtures of the tests that need more than a process: an MLflow server, a cluster, projects on
disk.
"""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_backend.places.runner_zip import build
from mlflow_runner.contract.submission import Submission
from mlflow_runner.processes.program import ISOLATED
from tests.bed.runs import Seen
from tests.bed.server import BIN, Server, use
from tests.packages.channel import Channel


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path):
    """A server that a test may stop."""
    directory = tmp_path / "server"
    directory.mkdir()
    server = Server(directory)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    """No MLflow setting and no targets file of the user who runs the tests; an empty current
    directory.
    """
    for name in list(os.environ):
        if name.startswith("MLFLOW_") and not name.startswith("MLFLOW_COMPUTE_TEST_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


@pytest.fixture
def server(shared_server, monkeypatch):
    """The session's server, set as this process's and its children's tracking URI."""
    use(shared_server.uri, monkeypatch)
    return shared_server


@pytest.fixture
def project(tmp_path):
    """A function that writes a project: `command` of the entry point main, further files by name,
    parameters.
    """

    def make(command=None, name="demo", parameters=None, head="", **files):
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        if command is not None:
            lines = "".join(f"      {key}: {value}\n" for key, value in (parameters or {}).items())
            listed = f"    parameters:\n{lines}" if lines else ""
            (root / "MLproject").write_text(
                f"name: {name}\n{head}entry_points:\n  main:\n{listed}    command: "
                f"{json.dumps(command)}\n"
            )
        for file, content in files.items():
            path = root / file.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return root

    return make


@pytest.fixture
def runner(tmp_path):
    """Start the runner itself for a command; `run_id` and its Popen."""

    def start(
        command,
        python=sys.executable,
        stdout=subprocess.PIPE,
        experiment="0",
        tags=None,
        deleted=False,
        env=None,
        **fields,
    ):
        run_id = MlflowClient().create_run(experiment, tags=tags).info.run_id
        MlflowClient().update_run(run_id, "SCHEDULED")
        if deleted:
            MlflowClient().delete_run(run_id)
        submission = Submission(
            run_id=run_id, experiment_id=experiment, tracking_uri=os.environ["MLFLOW_TRACKING_URI"], command=command,
            project_dir=str(tmp_path), scratch_dir=str(tmp_path / f"scratch-{run_id}"), cache_dir=str(tmp_path / "cache"), **fields,
        )  # fmt: skip
        (tmp_path / "runner.pyz").write_bytes(build())
        (tmp_path / "run.json").write_text(submission.to_json())
        argv = [python, ISOLATED, tmp_path / "runner.pyz", "run", tmp_path / "run.json"]
        return run_id, subprocess.Popen(argv, stdout=stdout, env={**os.environ, **(env or {})})

    return start


@pytest.fixture
def seen():
    """What MLflow knows of a run afterwards."""
    return Seen


@pytest.fixture
def last_run():
    def find():
        return Seen(
            MlflowClient()
            .search_runs(["0"], order_by=["attributes.start_time DESC"], max_results=1)[0]
            .info.run_id
        )

    return find


@pytest.fixture
def mlflow_run():
    """The command `mlflow run`, started; its standard output and error are text."""

    def start(*arguments, **keywords):
        command = [str(BIN / "mlflow"), "run", *map(str, arguments), "--backend", "compute"]
        # as in a terminal, not as in the background
        interruptible = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=interruptible,
            **keywords,
        )

    return start


@pytest.fixture(scope="session")
def channel(tmp_path_factory):
    """A conda channel with a CPython, modules, and packages that are no Python."""
    channel = Channel(tmp_path_factory.mktemp("channel"))
    channel.add_python()
    for version in ("1.0", "2.0"):
        channel.add_module("alpha", version)
    channel.add_module("beta", "1.0", ["python", "alpha <2"])
    channel.add_module("gamma", "1.0", ["python", "alpha >=2"])
    channel.add(
        "tool",
        "3.1",
        {
            "bin/tool": b"#!/bin/sh\necho tool 3.1\n",
            "etc/conda/activate.d/tool.sh": b"export TOOL_HOME=$CONDA_PREFIX\n",
        },
    )
    channel.add("future", "1.0", {"share/future": b""}, ["__glibc >=2.90"])
    channel.index()
    return channel


@pytest.fixture(scope="session")
def cluster_access():
    """A cluster with k8s/dev applied, the runner's image loaded and this worker's namespace.

    In CI its absence is a failure, never a skip.
    """
    from tests.cluster import dev
    from tests.cluster.place import NoCluster

    try:
        access = dev.up()
    except NoCluster as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    if dev.NAMESPACE != dev.RUNS:
        dev.add_namespace(access, dev.NAMESPACE)
    return access


@pytest.fixture
def kubectl(cluster_access):
    """Run kubectl in this worker's namespace of runs; its output as text."""
    from tests.cluster import dev

    def call(*arguments, **keywords):
        return dev.kubectl(cluster_access, "--namespace", dev.NAMESPACE, *arguments, **keywords)

    return call


@pytest.fixture
def cluster(cluster_access, server, kubectl, monkeypatch):
    """The target `dev-cluster`, whose pods report to the tests' server; a function that sets
    further fields of it.
    """
    from tests.cluster import dev
    from tests.cluster.place import IMAGE, TRACKING_URI

    monkeypatch.setenv("KUBECONFIG", cluster_access.kubeconfig)
    tracking_uri = (
        f"http://{cluster_access.host}:{server.port}"
        if cluster_access.host
        else os.environ[TRACKING_URI]
    )
    if not cluster_access.host:
        use(tracking_uri, monkeypatch)
    base = {
        "context": cluster_access.context,
        "namespace": dev.NAMESPACE,
        "image": dev.RUNNER_IMAGE if cluster_access.base_image else os.environ[IMAGE],
        "tracking_uri": tracking_uri,
    }

    def set_target(**fields):
        Path("mlflow-compute.yaml").write_text(
            json.dumps({"targets": {"dev-cluster": {**base, **fields}}})
        )

    set_target()
    yield set_target
    kubectl("delete", "jobs", "--all", "--wait=false")
