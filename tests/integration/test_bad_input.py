"""Bad input: one line that says what, where and what to do; no run, no object in the cluster."""

import json
import subprocess
import uuid
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from tests.bed.server import BIN
from tests.cluster import dev

THERE = {"COMPUTE": "dev-cluster"}


@pytest.fixture
def refused(cluster, kubectl, mlflow_run):
    """Run a project and return the one line that refuses it, after checking that nothing was
    created; `typed` with the command, else in this process, which takes a tenth of the time.
    """

    def things():
        selector = "app.kubernetes.io/managed-by=mlflow-compute"
        listed = kubectl("get", "jobs,secrets,configmaps", "-l", selector, "-o", "name")
        return {run.info.run_id for run in MlflowClient().search_runs(["0"])} | {*listed.split()}

    def call(uri, config=THERE, typed=False):
        before = things()
        line = _typed(mlflow_run, uri, config) if typed else _called(uri, config)
        assert not things() - before
        return line

    return call


def _called(uri, config) -> str:
    with pytest.raises(ExecutionException) as raised:
        mlflow.projects.run(str(uri), backend="compute", backend_config=dict(config))
    (line,) = str(raised.value).splitlines()
    return line


def _typed(mlflow_run, uri, config) -> str:
    process = mlflow_run(uri, "--backend-config", json.dumps(config))
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1 and "Traceback" not in err, err
    line = err.strip().splitlines()[-1]
    assert line.count("===") == 2, "what MLflow prints of an ExecutionException"
    return line


@pytest.fixture
def kubeconfig(cluster_access, tmp_path, monkeypatch):
    """A copy of the kubeconfig, changed by a function, and used."""

    def change(function):
        content = yaml.safe_load(Path(cluster_access.kubeconfig).read_text())
        function(content)
        path = tmp_path / "kubeconfig.yaml"
        path.write_text(yaml.safe_dump(content))
        monkeypatch.setenv("KUBECONFIG", str(path))

    return change


def test_an_unknown_target(refused, project):
    line = refused(project("true"), {"COMPUTE": "dev-clutser"}, typed=True)
    assert (
        "'dev-clutser'" in line
        and "mlflow-compute.yaml" in line
        and ("did you mean 'dev-cluster'?") in line
    )


def test_an_unknown_key(refused, project):
    assert "unknown key 'resource': did you mean 'resources'?" in refused(
        project("true"), {**THERE, "resource": {}}
    )


def test_a_malformed_targets_file(refused, project, cluster):
    Path("mlflow-compute.yaml").write_text(
        "targets:\n  dev-cluster:\n    image: x\n   namespace: y\n"
    )
    line = refused(project("true"))
    assert "mlflow-compute.yaml, line 4" in line


def test_compute_that_is_no_string(refused, project):
    assert "backend_config COMPUTE" in refused(project("true"), {"COMPUTE": ["dev-cluster"]})


def test_a_missing_parameter(refused, project):
    line = refused(project("echo {alpha}", parameters={"alpha": "float"}))
    assert "'alpha'" in line and "-P NAME=VALUE" in line


def test_a_project_whose_files_are_all_left_out(refused, project):
    root = project("true", _dot_mlflowignore="*\n")
    assert "no files" in refused(root)


def test_a_snapshot_that_is_too_large(refused, project):
    root = project("true")
    with open(root / "huge.bin", "wb") as file:
        file.truncate(400_000_000)
    line = refused(root)
    assert "huge.bin (400.0 MB)" in line and ".mlflowignore" in line


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///{folder}/m.db",
        "file://{folder}/mlruns",
        "http://127.0.0.1:5000",
        "http://localhost:5000",
    ],
)
def test_a_tracking_uri_that_pods_cannot_reach(refused, project, cluster, uri, tmp_path):
    cluster(tracking_uri=uri.format(folder=tmp_path))
    line = refused(project("true"))
    assert "cannot reach it" in line and "'tracking_uri'" in line and "MLFLOW_TRACKING_URI" in line


def test_a_quantity_that_is_none(refused, project):
    line = refused(project("true"), {**THERE, "resources": {"memory": "2 GB"}})
    assert "backend_config resources.memory" in line and "'2 GB'" in line


def test_what_only_kubernetes_can_refuse_is_refused_by_it_before_anything_exists(refused, project):
    line = refused(
        project("true"),
        {
            **THERE,
            "pod_template": {"spec": {"priorityClassName": "none", "restartPolicy": "Sometimes"}},
        },
    )
    assert "restartPolicy" in line and "Sometimes" in line and f"namespace {dev.NAMESPACE}" in line
    line = refused(project("true"), {**THERE, "resources": {"nic": 1}}, typed=True)
    assert "unknown resource 'nic'" in line


def test_a_target_without_an_image(refused, project, cluster):
    cluster(image=None)
    line = refused(project("true"))
    assert "'dev-cluster'" in line and "'image'" in line and "name an image" in line


def test_a_namespace_that_does_not_exist(refused, project):
    line = refused(project("true"), {**THERE, "namespace": "nowhere"})
    assert 'namespaces "nowhere" not found' in line and "create the namespace" in line


def test_no_kubeconfig(refused, project, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "KUBECONFIG" in refused(project("true"))


def test_a_context_that_does_not_exist(refused, project):
    line = refused(project("true"), {**THERE, "context": "prod"})
    assert "'prod'" in line and "kubeconfig" in line


def test_an_unreachable_cluster(refused, project, kubeconfig):
    kubeconfig(
        lambda content: content["clusters"][0]["cluster"].update(server="https://127.0.0.1:1")
    )
    line = refused(project("true"))
    assert "https://127.0.0.1:1" in line and "cannot be reached" in line and "refused" in line


def test_credentials_that_have_run_out(refused, project, kubeconfig):
    kubeconfig(lambda content: content["users"][0].update(user={"token": "wrong"}))
    line = refused(project("true"))
    assert "401" in line and "renew the kubeconfig's credentials" in line


def test_a_person_who_may_not_create_jobs(refused, project, kubeconfig, kubectl, cluster_access):
    token = subprocess.run(
        [cluster_access.kubectl, "--kubeconfig", cluster_access.kubeconfig, "-n", dev.NAMESPACE, "create", "token", "default"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    kubeconfig(lambda content: content["users"][0].update(user={"token": token}))
    line = refused(project("true"))
    assert (
        f'cannot create resource "jobs" in API group "batch" in the namespace "{dev.NAMESPACE}"'
        in line
        or 'cannot create resource "configmaps"' in line
    )
    assert "Role mlflow-compute-submitter" in line and token not in line


@pytest.mark.xdist_group("policy")  # the ConfigMap is one of the whole cluster
def test_targets_are_also_found_in_the_cluster_s_own_list(refused, project, cluster, kubectl):
    shared = {
        "targets": {
            "shared-cpu": json.loads(Path("mlflow-compute.yaml").read_text())["targets"][
                "dev-cluster"
            ]
        }
    }
    Path("mlflow-compute.yaml").unlink()
    system = ("-n", "mlflow-compute-system")
    kubectl(
        *system,
        "create",
        "configmap",
        "mlflow-compute-targets",
        f"--from-literal=mlflow-compute.yaml={json.dumps(shared)}",
    )
    try:
        listed = subprocess.run(
            [BIN / "mlflow-compute", "targets", "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert [(item["name"], item["source"]) for item in json.loads(listed.stdout)] == [
            ("shared-cpu", "ConfigMap mlflow-compute-system/mlflow-compute-targets")
        ]
        assert "did you mean 'shared-cpu'?" in refused(project("true"), {"COMPUTE": "shared-cpU"})
        done = mlflow.projects.run(
            str(project("echo yes")), backend="compute", backend_config={"COMPUTE": "shared-cpu"}
        )
        assert done.get_status() == "FINISHED"
    finally:
        kubectl(*system, "delete", "configmap", "mlflow-compute-targets")


def test_a_submit_that_breaks_half_way_leaves_a_failed_run_with_its_cause_and_nothing_else(
    cluster, project, last_run, kubectl, monkeypatch
):
    from mlflow_backend.errors import ClusterError
    from mlflow_backend.places.kubernetes.client.api import Cluster

    create = Cluster.create

    def broken(self, item, dry_run=False):
        if item["kind"] == "ConfigMap" and not dry_run:
            raise ClusterError("the connection broke")
        return create(self, item, dry_run)

    # a fault that the real server cannot be made to show at this moment
    monkeypatch.setattr(Cluster, "create", broken)
    before = kubectl("get", "configmaps", "-o", "name").split()
    with pytest.raises(ExecutionException, match="the connection broke"):
        mlflow.projects.run(
            str(project("sleep 60", unlike_dot_txt=uuid.uuid4().hex)),
            backend="compute",
            backend_config=dict(THERE),
        )
    found = last_run()
    assert (found.status, found.cause, found.tags["compute.message"]) == (
        "FAILED",
        "SubmitError",
        "the connection broke",
    )
    assert not kubectl(
        "get", "jobs", "-l", f"mlflow-compute/run-id={found.run.info.run_id}", "-o", "name"
    )
    assert set(kubectl("get", "configmaps", "-o", "name").split()) <= set(before)


@pytest.mark.parametrize("moment", ["Creation", "_created"])
def test_a_submit_that_is_interrupted_leaves_no_run_without_an_end_and_no_job(
    cluster, project, last_run, kubectl, monkeypatch, moment
):
    from mlflow_backend.places.kubernetes import submit

    def interrupted(*_):
        raise KeyboardInterrupt

    # Ctrl-C at a moment that no test can meet from outside
    monkeypatch.setattr(submit, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        mlflow.projects.run(str(project("sleep 60")), backend="compute", backend_config=dict(THERE))
    assert (last_run().status, last_run().cause) == ("FAILED", "SubmitError")
    assert not kubectl(
        "get", "jobs", "-l", f"mlflow-compute/run-id={last_run().run.info.run_id}", "-o", "name"
    )
