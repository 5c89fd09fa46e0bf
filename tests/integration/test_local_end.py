"""The end of a run on this machine: told once, by the reporter or from here, and never changed
afterwards.
"""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from mlflow_backend.places.local import prepare as local
from tests.bed.proxy import Proxy
from tests.bed.runs import HERE, Seen, wait_for
from tests.bed.runs import run_here as run
from tests.bed.server import BIN, use


@pytest.fixture
def proxy(server, monkeypatch, tmp_path):
    """The way to the tests' server, for client and runner; temporary folders of runs are below
    `tmp_path`/tmp.
    """
    proxy = Proxy(server.port)
    use(proxy.uri, monkeypatch)
    monkeypatch.setattr(local, "REPORT_TIMEOUT_S", 3.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield proxy
    use(server.uri, monkeypatch)
    proxy.close()


def begin(root, tmp_path, **more):
    return run(
        root,
        {**HERE, "STREAM_OUTPUT": False},
        synchronous=False,
        storage_dir=str(tmp_path / "scratch"),
        **more,
    )


def nothing_is_left(tmp_path):
    return not list((tmp_path / "scratch").iterdir())


def test_a_runner_whose_login_is_refused_fails_the_run_with_the_clients_own(
    proxy, project, tmp_path
):
    proxy.runner = "refuse"
    submitted = begin(project("sleep 60"), tmp_path)
    assert submitted.wait() is False
    found = Seen(submitted.run_id)
    assert (found.status, found.cause, found.tags["compute.exit_code"]) == (
        "FAILED",
        "TrackingError",
        "143",
    )
    assert found.run.info.end_time and nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("command", "status", "code"), [("true", "FINISHED", 0), ("exit 3", "FAILED", 3)]
)
def test_a_runner_that_cannot_reach_the_server_has_its_end_told_from_here(
    proxy, project, tmp_path, command, status, code
):
    proxy.runner = "cut"
    submitted = begin(project(f"echo here; {command}"), tmp_path)
    assert submitted.wait() is (status == "FINISHED")
    found = Seen(submitted.run_id)
    assert (found.status, found.tags["compute.exit_code"], found.cause) == (
        status,
        str(code),
        "ExitCode" if code else None,
    )
    assert found.tags["compute.log"].endswith(
        " bytes of the log are missing: the runner could not send them"
    ) and nothing_is_left(tmp_path)


def test_a_second_wait_and_a_late_cancel_change_nothing(server, project, tmp_path):
    submitted = begin(project("exit 3"), tmp_path)
    assert submitted.wait() is False
    before = (Seen(submitted.run_id).status, Seen(submitted.run_id).tags)
    assert submitted.wait() is False
    submitted.cancel()
    assert (Seen(submitted.run_id).status, Seen(submitted.run_id).tags) == before


def test_a_cancel_of_a_run_that_has_ended_and_was_not_waited_for_leaves_its_end(
    server, project, tmp_path
):
    submitted = begin(project("true"), tmp_path)
    wait_for(lambda: Seen(submitted.run_id).status == "FINISHED")
    submitted._process.wait()
    submitted.cancel()
    assert (
        submitted.wait() is True
        and Seen(submitted.run_id).status == "FINISHED"
        and nothing_is_left(tmp_path)
    )


def test_an_end_that_cannot_be_told_is_one_error_and_is_told_by_a_later_wait(
    proxy, project, tmp_path
):
    submitted = begin(project("sleep 2; exit 3"), tmp_path)
    wait_for(lambda: Seen(submitted.run_id).status == "RUNNING")
    proxy.mode = "cut"
    with pytest.raises(
        ExecutionException,
        match=f"^run {submitted.run_id} ended FAILED, exit code 3, cause "
        "ExitCode, but the end could not be written to MLflow: ",
    ):
        submitted.wait()
    assert nothing_is_left(tmp_path), "the folder holds credentials"
    proxy.mode = "open"
    assert submitted.wait() is False
    assert (Seen(submitted.run_id).status, Seen(submitted.run_id).cause) == ("FAILED", "ExitCode")


def test_a_run_whose_runner_is_killed_ends_with_its_log(server, project, tmp_path):
    submitted = begin(project("echo last words; sleep 300"), tmp_path)
    wait_for(
        lambda: (
            Seen(submitted.run_id).artifacts("logs")
            and Seen(submitted.run_id).log == b"last words\n"
        )
    )
    submitted._process.kill()
    assert submitted.wait() is False
    assert (Seen(submitted.run_id).status, Seen(submitted.run_id).cause) == ("FAILED", "RunnerLost")
    assert Seen(submitted.run_id).log == b"last words\n" and nothing_is_left(tmp_path)


def test_a_run_that_is_deleted_in_mlflow_is_no_success_and_no_error(server, project, tmp_path):
    submitted = begin(
        project(
            'python -c "import mlflow, os; '
            "mlflow.MlflowClient().delete_run(os.environ['MLFLOW_RUN_ID'])\""
        ),
        tmp_path,
    )
    assert submitted.wait() is False and submitted.wait() is False
    submitted.cancel()
    assert nothing_is_left(tmp_path)


def test_a_script_that_marks_its_run_failed_and_exits_with_0_fails_the_command(
    server, project, mlflow_run, last_run
):
    script = "import mlflow\nwith mlflow.start_run(): mlflow.end_run('FAILED')\n"
    process = mlflow_run(
        project("python s.py", s_dot_py=script), "--backend-config", json.dumps(HERE)
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out.splitlines()[-2].startswith(
        "[mlflow-compute] FAILED, exit code 0, cause MarkedFailed: "
    )
    assert (last_run().status, last_run().cause, last_run().tags["compute.exit_code"]) == (
        "FAILED",
        "MarkedFailed",
        "0",
    )


def test_ctrl_c_twice_leaves_a_server_that_does_not_answer(proxy, project, mlflow_run):
    """The first one stops the command; the reporter then waits for the server, and the second one
    ends that.
    """
    root = project("echo $$ > pid; sleep 300")
    process = mlflow_run(root, "--backend-config", json.dumps(HERE), start_new_session=True)
    wait_for(lambda: (root / "pid").exists() and (root / "pid").read_text().strip())
    pid = (root / "pid").read_text().strip()
    proxy.mode = "cut"
    os.killpg(process.pid, signal.SIGINT)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    time.sleep(2)
    started_s = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=50)
    assert process.returncode == 130 and "Traceback" not in err
    assert time.monotonic() - started_s < 45, "less than the minute that a reporter has"


def test_output_that_is_read_no_further_does_not_disturb_the_run(
    server, project, mlflow_run, last_run
):
    """`mlflow run ... | head -1`: standard output is closed while the run goes on."""
    root = project("seq 1 100000; sleep 1; seq 1 100000")
    process = mlflow_run(root, "--backend-config", json.dumps(HERE), bufsize=0)
    process.stdout.readline()
    process.stdout.close()
    process.wait(60)
    err = process.stderr.read()
    assert "Traceback" not in err
    assert last_run().status == "FINISHED"
    assert MlflowClient().get_run(last_run().run.info.run_id).info.end_time


def test_neither_output_nor_words_that_no_process_reads_disturb_the_run(proxy, project, last_run):
    """`mlflow run ... 2>&1 | head -1`.

    The reporter has something to say too, on the same standard error.
    """
    proxy.artifacts = 500
    threading.Timer(8, lambda: setattr(proxy, "artifacts", None)).start()
    root = project("seq 1 1000; sleep 6; seq 1 1000; echo last")
    shell = (
        f"{BIN}/mlflow run {root} --backend compute --backend-config '{json.dumps(HERE)}' 2>&1 | "
        "head -1; exit ${PIPESTATUS[0]}"
    )
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr, ended.stdout.count("\n")) == (0, "", 1)
    assert last_run().status == "FINISHED" and "compute.log" not in last_run().tags
    assert b"\nlast\n" in last_run().log


def test_the_folder_of_a_run_that_is_cancelled_at_once_is_removed(server, project, tmp_path):
    submitted = begin(project("sleep 300"), tmp_path)
    submitted.cancel()
    assert Seen(submitted.run_id).status == "KILLED" and nothing_is_left(tmp_path)
