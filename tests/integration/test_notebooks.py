"""The example notebooks do what their names say."""

from pathlib import Path

import nbformat
import yaml
from mlflow.tracking import MlflowClient
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"


def execute(name):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(
        notebook,
        timeout=280,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    ).execute()
    return notebook


def outputs(notebook):
    return "".join(output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for cell in notebook.cells
                   if cell.cell_type == "code" for output in cell.outputs)  # fmt: skip


def targets_of(name):
    runs = MlflowClient().search_runs(["0"], filter_string=f"tags.mlflow.runName = '{name}'")
    return [(run.info.status, run.data.tags["compute.target"]) for run in runs]


def test_train_projects_local_runs_here_and_uses_the_model(server):
    notebook = execute("train-projects-local.ipynb")
    assert targets_of("local") == [("FINISHED", "local")]
    assert "rmse" in outputs(notebook) and "alpha=0.3" in outputs(notebook), (
        "the script's output is shown in the notebook"
    )


def test_train_projects_remote_runs_on_the_cluster(cluster, monkeypatch):
    targets = Path("mlflow-compute.yaml").absolute()
    assert "dev-cluster" in yaml.safe_load(targets.read_text())["targets"]
    monkeypatch.setenv("MLFLOW_COMPUTE_CONFIG", str(targets))
    notebook = execute("train-projects-remote.ipynb")
    assert targets_of("remote") == [("FINISHED", "dev-cluster")]
    assert "alpha=0.3" in outputs(notebook) and "[True, True]" in outputs(notebook)
