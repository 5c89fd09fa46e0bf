"""`DRY_RUN` shows what would be created, and creates nothing."""

import json
import tempfile

import mlflow
import pytest
import yaml
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from tests.bed.runs import HERE, THERE

PASSWORD = "s3cr3t-password"


def all_runs():
    return [run.info.run_id for run in MlflowClient().search_runs(["0"])]


@pytest.fixture
def tried(server, tmp_path, mlflow_run, monkeypatch):
    """`mlflow run` with DRY_RUN and this backend_config: its exit code, output and error."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def run(root, config):
        config = json.dumps({**config, "DRY_RUN": True})
        process = mlflow_run(root, "--backend-config", config, "-P", "alpha=0.5")
        out, err = process.communicate(timeout=120)
        assert not list(temporary.glob("mlflow-compute-*"))
        return process.returncode, out, err

    monkeypatch.setenv("TMPDIR", str(temporary))
    before = all_runs()
    yield run
    assert all_runs() == before, "no run was created"


@pytest.fixture
def root(project):
    return project("python train.py {alpha}", parameters={"alpha": "float"}, train_dot_py="pass\n")


def test_the_objects_of_a_run_in_a_cluster(cluster, server, root, kubectl, tried, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    before = kubectl("get", "jobs,configmaps,secrets", "-o", "name")
    code, out, err = tried(root, THERE)
    assert code == 0, err
    job, config_map, secret = yaml.safe_load_all(out)
    assert [item["kind"] for item in (job, config_map, secret)] == ["Job", "ConfigMap", "Secret"]
    assert set(config_map["binaryData"]) == {"runner.pyz", "snapshot.tar.gz", "run.json"}
    assert set(secret["data"].values()) == {"***"}
    assert "MLFLOW_TRACKING_PASSWORD" in secret["data"] and PASSWORD not in out + err
    assert "dry run: the API server accepts this in namespace" in err
    assert kubectl("get", "jobs,configmaps,secrets", "-o", "name") == before


def test_what_the_api_server_refuses_is_shown_and_said(cluster, server, root, tried):
    foreign = {"name": "tmp", "emptyDir": None, "secret": {"secretName": "of-others"}}
    code, out, err = tried(root, {**THERE, "pod_template": {"spec": {"volumes": [foreign]}}})
    assert code == 1 and "volume tmp uses a Secret that this Job must not use" in err
    assert "Traceback" not in err and "secretName: of-others" in out


def test_a_run_on_this_machine(server, root, tried):
    code, out, err = tried(root, HERE)
    shown = yaml.safe_load(out)
    assert code == 0 and "nothing is created" in err
    assert shown["command"] == "python train.py 0.5"
    assert (shown["entry_point"], shown["parameters"]) == ("main", {"alpha": "0.5"})


def test_in_python_there_is_no_run_and_one_line_says_so(server, root, capfd, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = all_runs()
    with pytest.raises(
        ExecutionException, match=r"^DRY_RUN: the run would be accepted; nothing was"
    ):
        mlflow.projects.run(
            str(root), parameters={"alpha": 1}, backend="compute", backend_config={"DRY_RUN": True}
        )
    assert "command: python train.py 1" in capfd.readouterr().out
    assert all_runs() == before
    assert not list((tmp_path / "tmp").glob("mlflow-compute-*"))
