"""A command that is stopped leaves no temporary folder, and takes none away from a run that goes
on.
"""

import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from mlflow.tracking import MlflowClient

from tests.bed.server import BIN


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def started(uri, tmp_path):
    command = [
        str(BIN / "mlflow"),
        "run",
        str(uri),
        "--backend",
        "compute",
        "--env-manager",
        "local",
    ]
    return subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_stopped_while_it_packs_leaves_no_folder_and_no_run(
    server, place, project, tmp_path, number
):
    root = project("sleep 60")
    (root / "code.bin").write_bytes(os.urandom(19_000_000))
    before = [run.info.run_id for run in MlflowClient().search_runs(["0"])]
    process = started(root, tmp_path)
    until(
        lambda: any(
            path.stat().st_size > 1_000_000
            for path in place.glob("mlflow-compute-*/snapshot.tar.gz")
        )
    )
    process.send_signal(number)
    process.wait()
    assert process.returncode == 128 + number and os.listdir(place) == []
    assert [run.info.run_id for run in MlflowClient().search_runs(["0"])] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_of_a_fetched_project_keeps_its_folder_until_its_end_though_the_command_is_gone(
    server, place, tmp_path, last_run, number
):
    with zipfile.ZipFile(tmp_path / "project.zip", "w") as archive:
        archive.writestr(
            "MLproject",
            f"entry_points: {{main: {{command: 'touch {tmp_path}/on; while test ! -e "
            f"{tmp_path}/go; do sleep 0.1; done; cat data'}}}}",
        )
        archive.writestr("data", "still here")
    process = started(tmp_path / "project.zip", tmp_path)
    until((tmp_path / "on").exists)
    process.send_signal(number)
    process.wait()
    (tmp_path / "go").touch()
    until(lambda: last_run().status in ("FINISHED", "FAILED"))
    assert last_run().status == "FINISHED"
    until(lambda: os.listdir(place) == [])


def test_a_run_that_nothing_waits_for_leaves_no_folder(server, place, project, last_run):
    submit = (
        "import mlflow, sys; mlflow.projects.run(sys.argv[1], backend='compute', "
        "backend_config={'USE_CONDA': False}, synchronous=False)"
    )
    root = project(f"while test ! -e {place.parent}/go; do sleep 0.1; done")
    subprocess.run([sys.executable, "-c", submit, str(root)], check=True)
    (place.parent / "go").touch()
    until(lambda: last_run().status == "FINISHED" and os.listdir(place) == [])


def test_a_run_that_ended_before_its_process_leaves_no_folder(server, place, project, last_run):
    submit = """
import mlflow, sys, time
run = mlflow.projects.run(sys.argv[1], backend="compute", backend_config={"USE_CONDA": False}, synchronous=False)
while run.get_status() != "FINISHED" or run._process.poll() is None:
    time.sleep(0.1)
"""
    subprocess.run([sys.executable, "-c", submit, str(project("true"))], check=True)
    assert last_run().status == "FINISHED" and os.listdir(place) == []
