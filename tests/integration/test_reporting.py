"""The three channels of reporting: what goes wrong with one does not stop the others, and never the
command.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.entities import RunTag
from mlflow.tracking import MlflowClient

from mlflow_backend.places.kubernetes.runs import ClientRuns
from mlflow_backend.places.kubernetes.settle import judge
from mlflow_runner.contract.answers import Unavailable
from mlflow_runner.contract.ending import end_tags
from mlflow_runner.contract.outcome import Outcome
from mlflow_runner.contract.state import State
from mlflow_runner.contract.submission import Download
from mlflow_runner.contract.tags import END_TAGS
from mlflow_runner.contract.topology import NODES, Topology
from mlflow_runner.report.children import end_children
from mlflow_runner.report.status import Status
from mlflow_runner.tracking import connect
from mlflow_runner.tracking.rest import RestRun
from tests.bed.proxy import ARTIFACTS, Proxy
from tests.bed.runs import Seen, wait_for
from tests.bed.server import use
from tests.unit.test_settle import RUNNING, SENT


@pytest.fixture
def proxy(server, monkeypatch):
    """The way that the runner takes to the tests' server; the tests themselves go to it directly."""
    proxy = Proxy(server.port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    yield proxy
    proxy.close()


def reporter_of(process) -> int:
    """The process id of the runner's reporter."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"\0report\0" in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except (OSError, ValueError, IndexError):
            continue
    return 0


def keep(tmp_path, size=100):
    """A file that is to be kept with the run as its code."""
    (tmp_path / "code.tar.gz").write_bytes(os.urandom(size))
    return str(tmp_path / "code.tar.gz")


@pytest.mark.parametrize("status", [401, 403, 405, 411])
def test_a_store_that_refuses_artifacts_costs_the_log_and_nothing_else(
    proxy, runner, tmp_path, status
):
    proxy.artifacts = status
    run_id, process = runner("echo here; sleep 3; echo there", keep_archive=keep(tmp_path))
    out, _ = process.communicate(timeout=60)
    found = Seen(run_id)
    assert (process.returncode, found.status, found.cause) == (0, "FINISHED", None)
    assert out.startswith(b"here\nthere\n"), "the command was not stopped"
    assert (
        found.tags["compute.log"].endswith(f"{status} the proxy says so")
        and "bytes of the log are missing: PUT" in found.tags["compute.log"]
    )
    assert found.tags["compute.files"].startswith("code/snapshot.tar.gz missing: PUT")


def test_a_store_that_takes_only_small_bodies_gets_the_log_in_small_parts(proxy, runner, tmp_path):
    proxy.body_limit = 100_000
    run_id, process = runner("seq 1 200000", keep_archive=keep(tmp_path, 150_000))
    process.communicate(timeout=60)
    found = Seen(run_id)
    assert (process.returncode, found.status) == (0, "FINISHED")
    assert found.log.startswith(b"".join(b"%d\n" % number for number in range(1, 200_001)))
    assert "compute.log" not in found.tags and found.tags["compute.files"].startswith(
        "code/snapshot.tar.gz missing: PUT"
    )
    sizes = [
        len(call.body)
        for call in proxy.calls
        if call.path.startswith(ARTIFACTS) and "/logs/" in call.path
    ]
    assert max(sizes) <= 512 * 1024
    assert len([size for size in sizes if size > 100_000]) <= 3, (
        "what was too large once is not tried again"
    )


@pytest.mark.parametrize("fault", [500, 507, "cut", "hang"])
def test_a_store_that_is_in_trouble_does_not_hold_the_end_up(proxy, runner, fault):
    """The time for log and files after the end is that for the end, if that is shorter."""
    proxy.artifacts = fault
    run_id, process = runner("echo here; sleep 1", report_timeout_s=8.0)
    wait_for(lambda: Seen(run_id).status == "FINISHED", timeout_s=20)
    assert process.poll() is None, "log and files are still tried"
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and out.endswith(f"run {run_id} has ended\n".encode())
    assert "bytes of the log are missing: " in Seen(run_id).tags["compute.log"]


def test_a_store_that_recovers_after_the_end_gets_the_whole_log(proxy, runner):
    proxy.artifacts = 500
    run_id, process = runner("echo here; sleep 1")
    wait_for(lambda: Seen(run_id).status == "FINISHED", timeout_s=30)
    proxy.artifacts = None
    process.communicate(timeout=60)
    assert Seen(run_id).log.startswith(b"here\n") and "compute.log" not in Seen(run_id).tags


def test_the_log_is_complete_before_the_run_is_finished(proxy, runner):
    _run_id, process = runner("echo here; sleep 1; seq 1 100000")
    process.communicate(timeout=60)
    last_log = max(index for index, call in enumerate(proxy.calls) if "/logs/" in call.path)
    ended = next(
        index
        for index, call in enumerate(proxy.calls)
        if b"FINISHED" in call.body and call.endpoint == "runs/update"
    )
    assert last_log < ended


@pytest.mark.parametrize(
    "fault",
    [{"mode": "refuse"}, {"mode": 403}, {"mode": 404}, {"endpoints": {"runs/log-batch": 403}}],
)
def test_a_run_that_the_server_rejects_from_the_beginning_is_stopped(
    proxy, runner, tmp_path, fault
):
    for name, value in fault.items():
        setattr(proxy, name, value)
    _run_id, process = runner("echo here; sleep 60", termination_log=str(tmp_path / "told"))
    process.communicate(timeout=30)
    told = json.loads((tmp_path / "told").read_text())
    assert (process.returncode, told["status"], told["cause"], told["reported"]) == (
        143,
        "FAILED",
        "TrackingError",
        False,
    )
    assert told["message"].startswith("The tracking server refuses this run: ")


def test_a_login_that_is_withdrawn_later_does_not_stop_the_command(proxy, runner):
    run_id, process = runner("echo here; sleep 6; echo there")
    wait_for(lambda: Seen(run_id).status == "RUNNING")
    proxy.mode = "refuse"
    time.sleep(5)
    proxy.mode = "open"
    out, _ = process.communicate(timeout=60)
    assert out.startswith(b"here\nthere\n") and Seen(run_id).status == "FINISHED"


def test_a_proxy_that_cannot_find_the_server_for_a_moment_does_not_make_the_run_a_deleted_one(
    proxy, runner
):
    """An ingress answers 404 while its backend is replaced; MLflow names its own error code."""
    run_id, process = runner("echo here; sleep 3; echo there")
    wait_for(lambda: Seen(run_id).status == "RUNNING")
    proxy.mode = 404
    time.sleep(6)
    proxy.mode = "open"
    out, _ = process.communicate(timeout=60)
    assert out.startswith(b"here\nthere\n") and Seen(run_id).status == "FINISHED"


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{}", b'{"run": null}', b'{"run": {"info": 1, "data": 2}}', b"<html>Sign in</html>"],
)
def test_an_answer_that_makes_no_sense_is_an_outage(proxy, runner, body):
    proxy.answers = {"runs/get": body}
    run_id, process = runner("echo here; sleep 3")
    wait_for(lambda: len(proxy.calls) >= 2)
    proxy.answers = {}
    process.communicate(timeout=60)
    assert Seen(run_id).status == "FINISHED" and Seen(run_id).log.startswith(b"here\n")


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_end_is_written_tags_first_stale_tags_out_and_the_status_last(
    proxy, runner, monkeypatch, attempt
):
    """Also where an earlier attempt left an end of its own, and where the first write of the end
    fails half way.
    """
    monkeypatch.setenv("MLFLOW_COMPUTE_POD", f"pod-{attempt}")
    monkeypatch.setenv("MLFLOW_COMPUTE_JOB_UID", "uid-1")
    monkeypatch.setenv("MLFLOW_COMPUTE_FAILURES", str(attempt - 1))
    stale = (
        {**end_tags("KILLED", "Terminated", "stopped", 143), "compute.pod": "pod-0"}
        if attempt > 1
        else {}
    )
    run_id, process = runner("true", tags=stale)
    process.communicate(timeout=60)
    writes = [
        (call.endpoint, json.loads(call.body))
        for call in proxy.calls
        if call.method == "POST" and call.endpoint != "runs/search"
    ]
    end = next(
        index
        for index, (name, body) in enumerate(writes)
        if name == "runs/log-batch" and "compute.status" in tags_in(body)
    )
    assert (
        tags_in(writes[end][1])["compute.status"] == "FINISHED"
        and tags_in(writes[end][1])["compute.exit_code"] == "0"
    )
    assert [name for name, _ in writes[end + 1 : -1]] == ["runs/delete-tag"] * (
        len(writes) - end - 2
    )
    assert (writes[-1][0], writes[-1][1]["status"]) == ("runs/update", "FINISHED")
    found = Seen(run_id)
    assert (found.status, found.cause, "compute.message" in found.tags) == ("FINISHED", None, False)
    assert (found.tags["compute.pod"], found.tags["compute.job_uid"]) == (f"pod-{attempt}", "uid-1")
    assert found.tags.get("compute.attempt") == (str(attempt) if attempt > 1 else None)


def tags_in(body):
    return {tag["key"]: tag["value"] for tag in body["tags"]}


def test_where_a_run_is_stands_in_its_tags_while_it_runs(proxy, runner, monkeypatch):
    monkeypatch.setenv("MLFLOW_COMPUTE_JOB_UID", "uid-1")
    run_id, process = runner("sleep 60")
    wait_for(lambda: Seen(run_id).status == "RUNNING")
    assert Seen(run_id).tags["compute.job_uid"] == "uid-1"
    process.terminate()
    process.communicate(timeout=30)


@pytest.mark.parametrize("endpoint", ["runs/log-batch", "runs/update", "runs/delete-tag"])
@pytest.mark.parametrize(
    ("code", "status"), [(None, "RUNNING"), (0, "FINISHED"), (75, "SCHEDULED")]
)
def test_an_attempt_after_a_stopped_one_survives_an_answer_503(
    proxy, tmp_path, endpoint, code, status
):
    """As tests/unit/test_half_written.py, with MLflow's own server."""
    stopped = end_tags("KILLED", "Terminated", "The run was stopped by SIGTERM.", 143)
    run_id = (
        MlflowClient().create_run("0", tags={**SENT, **stopped, "compute.pod": "pod-1"}).info.run_id
    )
    MlflowClient().set_terminated(run_id, "KILLED")
    state = State(
        started=True,
        pod="pod-2",
        attempt=2,
        exit_code=code,
        status=None if code is None else status,
    )
    told = Status(tmp_path, lambda: connect(proxy.uri, run_id))
    proxy.endpoints = {endpoint: 503}
    with pytest.raises(Unavailable):
        told.look(state) if code is None else told.write_end(state, {})
    verdict = judge(ClientRuns().read(run_id), RUNNING)
    assert not verdict.ended and verdict.end is None and not verdict.remove_job
    proxy.endpoints = {}
    told.look(state) if code is None else told.write_end(state, {})
    tags = {name: value for name, value in Seen(run_id).tags.items() if name in END_TAGS}
    wanted = {} if code is None else {"compute.status": status, "compute.exit_code": str(code)}
    assert (Seen(run_id).status, tags) == (status, wanted)


def test_an_end_that_fails_half_way_is_written_again_and_stays_the_same(proxy, runner):
    """The script's own FAILED is met again by the second try, next to the cause that the first one
    wrote.
    """
    script = "import mlflow\nwith mlflow.start_run(): mlflow.end_run('FAILED')"
    run_id, process = runner(f'{sys.executable} -c "{script}"; sleep 4')
    wait_for(lambda: Seen(run_id).status == "FAILED")
    proxy.endpoints = {"runs/update": 503}
    wait_for(lambda: Seen(run_id).cause == "MarkedFailed")
    proxy.endpoints = {}
    process.communicate(timeout=60)
    assert (Seen(run_id).status, Seen(run_id).cause) == ("FAILED", "MarkedFailed")


def test_a_script_that_marks_its_run_failed_and_exits_with_0_has_failed(server, runner, tmp_path):
    script = "import mlflow\nwith mlflow.start_run(): mlflow.end_run('FAILED')"
    run_id, process = runner(
        f'{sys.executable} -c "{script}"', termination_log=str(tmp_path / "told"), mark="m4rk"
    )
    out, _ = process.communicate(timeout=60)
    found, message = (
        Seen(run_id),
        ("The command exited with code 0, but the script marked the run FAILED."),
    )
    assert (
        found.status,
        found.cause,
        found.tags["compute.message"],
        found.tags["compute.exit_code"],
    ) == (
        "FAILED",
        "MarkedFailed",
        message,
        "0",
    )
    said = f"[mlflow-compute] FAILED, exit code 0, cause MarkedFailed: {message}\n"
    assert out.decode().endswith(f"{said}[mlflow-compute] run {run_id} has ended m4rk\n")
    assert found.log.decode().endswith(said)
    told = json.loads((tmp_path / "told").read_text())
    assert told == {
        "status": "FAILED",
        "exit_code": 0,
        "cause": "MarkedFailed",
        "message": message,
        "reported": True,
    }


@pytest.mark.parametrize("when", ["before the start", "while it runs"])
def test_a_run_that_is_deleted_in_mlflow_is_stopped_as_a_cancelled_one(
    server, runner, tmp_path, when
):
    run_id, process = runner(
        "echo here; sleep 300",
        termination_log=str(tmp_path / "told"),
        deleted=when == "before the start",
    )
    if when == "while it runs":
        wait_for(lambda: Seen(run_id).status == "RUNNING")
        MlflowClient().delete_run(run_id)
    out, _ = process.communicate(timeout=40)
    told = json.loads((tmp_path / "told").read_text())
    assert (process.returncode, told["status"], told["cause"], told["reported"]) == (
        143,
        "KILLED",
        "Cancelled",
        False,
    )
    assert told["message"] == "The run was deleted in MLflow."
    assert out.endswith(f"run {run_id} has ended\n".encode())


def test_reporting_of_a_run_that_was_deleted_ends_at_once(server, runner):
    script = "import mlflow, os; mlflow.MlflowClient().delete_run(os.environ['MLFLOW_RUN_ID'])"
    _run_id, process = runner(f'{sys.executable} -c "{script}"; echo done')
    out, _ = process.communicate(timeout=40)
    assert (
        process.returncode == 0
        and (b"[mlflow-compute] the run was deleted in MLflow: its end is not recorded there\n")
        in out
    )


@pytest.mark.parametrize("fault", ["cut", "hang"])
@pytest.mark.parametrize(("command", "code"), [("sleep 300", 143), ("sleep 3; exit 3", 3)])
def test_a_second_signal_ends_the_reporting(proxy, runner, tmp_path, fault, command, code):
    """The first one stops the command, or finds that it has ended by itself; it leaves the
    reporting alone.
    """
    told = tmp_path / "told"
    run_id, process = runner(command, termination_log=str(told))
    wait_for(lambda: Seen(run_id).status == "RUNNING")
    proxy.mode = fault
    if code == 143:
        process.terminate()
    wait_for(lambda: told.exists() and told.read_text())
    if code == 3:
        process.terminate()
    time.sleep(2)
    assert process.poll() is None, "the server may come back"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode == code


@pytest.mark.parametrize("fault", ["cut", "hang"])
@pytest.mark.parametrize(
    ("command", "code", "status"),
    [("sleep 300", 143, "KILLED"), ("sleep 3; exit 3", 3, "FAILED"), ("sleep 3", 0, "FINISHED")],
)
def test_a_pod_that_is_evicted_while_its_end_cannot_be_told_ends_in_time_with_its_own_code(
    proxy, runner, tmp_path, fault, command, code, status
):
    """The kubelet kills it 5 s after the grace period: its code is 137 then, and its message is
    believed no more.
    """
    told, grace_period_s = tmp_path / "told", 2.0
    run_id, process = runner(
        command,
        termination_log=str(told),
        grace_period_s=grace_period_s,
        stopped_means="Terminated",
    )
    wait_for(lambda: Seen(run_id).status == "RUNNING")
    proxy.mode = fault
    if code != 143:
        wait_for(lambda: told.exists() and told.read_text())
    process.terminate()
    stopped_s = time.monotonic()
    process.communicate(timeout=30)
    assert time.monotonic() - stopped_s < grace_period_s + 5
    found = json.loads(told.read_text())
    assert (process.returncode, found["status"], found["exit_code"], found["reported"]) == (
        code,
        status,
        code,
        False,
    )


def test_a_stop_while_the_inputs_are_fetched_is_told(proxy, runner, tmp_path):
    """The same holds for every tool that prepares a run: each is a child of the supervisor."""
    told, proxy.endpoints["/data"] = tmp_path / "told", "hang"
    download = Download(f"{proxy.uri}/data", str(tmp_path / "in" / "data"))
    run_id, process = runner(
        "true", termination_log=str(told), downloads=(download,), stopped_means="Terminated"
    )
    wait_for(lambda: any(call.path == "/data" for call in proxy.calls))
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143 and json.loads(told.read_text())["cause"] == "Terminated"
    assert (Seen(run_id).status, Seen(run_id).cause) == ("KILLED", "Terminated")


def test_a_stop_before_the_runner_has_read_what_to_do_is_not_lost(server, runner, tmp_path):
    """The kernel drops a signal without a handler for the first process of a container
    (`SIGNAL_UNKILLABLE`).
    """
    told, described = tmp_path / "told", tmp_path / "run.json"
    run_id, process = runner("sleep 300", termination_log=str(told))
    process.kill()
    process.communicate()
    text = described.read_text()
    described.unlink()
    os.mkfifo(described)
    process = subprocess.Popen(
        [sys.executable, "-I", tmp_path / "runner.pyz", "run", described], stdout=subprocess.PIPE
    )
    with open(described, "w") as pipe:  # waits for the runner
        process.terminate()
        pipe.write(text)
    process.communicate(timeout=30)
    assert (
        process.returncode == 143
        and json.loads(told.read_text())["status"] == "KILLED"
        and Seen(run_id).status == "KILLED"
    )


def test_a_runner_that_cannot_begin_says_so_in_the_termination_message(server, runner, tmp_path):
    _run_id, process = runner(
        "true", termination_log=str(tmp_path / "told"), env={"MLFLOW_COMPUTE_FAILURES": "none"}
    )
    process.communicate(timeout=30)
    told = json.loads((tmp_path / "told").read_text())
    assert (process.returncode, told["status"], told["cause"], told["exit_code"]) == (
        1,
        "FAILED",
        "RunnerError",
        1,
    )
    assert told["message"].startswith("The runner cannot start: ValueError: ")


def test_the_end_is_in_the_termination_message_before_anything_is_reported(proxy, runner, tmp_path):
    told = tmp_path / "told"
    run_id, process = runner("sleep 2", termination_log=str(told))
    wait_for(lambda: Seen(run_id).status == "RUNNING")
    proxy.mode = "hang"
    wait_for(lambda: told.exists() and told.read_text())
    assert json.loads(told.read_text()) == {
        "status": "FINISHED",
        "exit_code": 0,
        "cause": None,
        "message": "",
        "reported": False,
    }
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_a_reporter_that_is_started_again_goes_on_where_the_first_one_was(server, runner, tmp_path):
    run_id, process = runner("seq 1 100000; sleep 2; echo killed; sleep 4; echo last")
    wait_for(lambda: len(Seen(run_id).artifacts("logs")) >= 1 and b"\n100000\n" in Seen(run_id).log)
    os.kill(reporter_of(process), signal.SIGKILL)
    process.communicate(timeout=60)
    found = Seen(run_id)
    assert found.log.startswith(
        b"".join(b"%d\n" % number for number in range(1, 100_001)) + b"killed\nlast\n"
    )
    assert len({name.split(".")[0] for name in found.artifacts("logs")}) == 1
    assert found.status == "FINISHED"


def test_a_reporter_that_is_started_again_does_not_hide_what_the_script_said_meanwhile(
    server, runner
):
    script = "import mlflow\nwith mlflow.start_run(): mlflow.end_run('FAILED')"
    run_id, process = runner(f'echo up; sleep 3; {sys.executable} -c "{script}"')
    wait_for(lambda: Seen(run_id).status == "RUNNING")
    os.kill(reporter_of(process), signal.SIGKILL)
    process.communicate(timeout=60)
    assert (Seen(run_id).status, Seen(run_id).cause) == ("FAILED", "MarkedFailed")


def test_a_token_with_a_newline_works_and_one_with_a_control_character_is_refused_unseen(
    proxy, runner, tmp_path, capfd
):
    run_id, process = runner(
        'printf %s "$MLFLOW_TRACKING_TOKEN" | wc -c',
        env={"MLFLOW_TRACKING_TOKEN": "s3cr3t-token\n"},
    )
    out, _ = process.communicate(timeout=60)
    assert Seen(run_id).status == "FINISHED" and out.split()[0] == b"12", (
        "the command gets it without the newline too"
    )
    of_runner = [
        call for call in proxy.calls if call.headers["User-Agent"].startswith("mlflow-compute/")
    ]
    assert {call.headers.get("Authorization") for call in of_runner} == {"Bearer s3cr3t-token"}
    run_id, process = runner(
        "sleep 60",
        termination_log=str(tmp_path / "told"),
        env={"MLFLOW_TRACKING_TOKEN": "s3cr3t\x01token"},
    )
    out, _ = process.communicate(timeout=60)
    told = json.loads((tmp_path / "told").read_text())
    words = "MLFLOW_TRACKING_TOKEN contains a control character: set it to one line of text."
    assert told["message"] == f"The tracking server refuses this run: {words}"
    assert "s3cr3t" not in out.decode() + capfd.readouterr().err + (tmp_path / "told").read_text()


@pytest.mark.parametrize("listed", [False, True])
def test_the_login_goes_to_another_artifact_host_only_where_that_is_listed(
    server, proxy, runner, listed
):
    """The server of today takes no such experiment; one that does, or that is not ours, may answer
    so.
    """
    elsewhere = Proxy(server.port)
    location = f"mlflow-artifacts://127.0.0.1:{elsewhere.port}/elsewhere"
    info = {
        "run_id": "x",
        "status": "RUNNING",
        "artifact_uri": location,
        "experiment_id": "0",
        "lifecycle_stage": "active",
    }
    proxy.answers["runs/get"] = json.dumps({"run": {"info": info, "data": {"tags": []}}}).encode()
    hosts = (f"127.0.0.1:{elsewhere.port}",) if listed else ()
    login = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "correct-horse"}
    run_id, process = runner("echo here", credential_hosts=hosts, env=login)
    process.communicate(timeout=90)
    proxy.answers.clear()
    assert Seen(run_id).status == "FINISHED"
    uploads = [
        call
        for call in elsewhere.calls
        if call.method == "PUT" and call.headers["User-Agent"].startswith("mlflow-compute/")
    ]
    assert uploads and {"Authorization" in call.headers for call in uploads} == {listed}
    elsewhere.close()


def test_a_module_of_the_project_named_like_one_of_pythons_does_not_reach_the_runner(
    server, runner, tmp_path, monkeypatch
):
    (tmp_path / "modules").mkdir()
    for name in ("http", "json", "select", "urllib", "threading"):
        (tmp_path / "modules" / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    run_id, process = runner('echo "$PYTHONPATH"')
    process.communicate(timeout=60)
    assert Seen(run_id).status == "FINISHED" and Seen(run_id).log.startswith(
        f"{tmp_path}/modules\n".encode()
    )


def test_mlflow_on_pythonpath_is_found_where_it_is_needed(tmp_path, runner, monkeypatch):
    """A store that only MLflow's client reaches, and a Python that has MLflow by PYTHONPATH alone."""
    use(f"sqlite:///{tmp_path}/mlflow.db", monkeypatch)
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    )
    run_id, process = runner("echo here", python=str(bare / "bin" / "python"))
    process.communicate(timeout=120)
    assert Seen(run_id).status == "FINISHED" and Seen(run_id).log.startswith(b"here\n")


@pytest.mark.parametrize("in_pod", [False, True])
def test_an_open_line_is_seen_in_a_containers_log_and_the_kept_log_is_exact(
    server, runner, monkeypatch, in_pod
):
    if in_pod:
        monkeypatch.setenv("MLFLOW_COMPUTE_POD", "pod")
    run_id, process = runner(r"printf '\r10%%'; sleep 3; printf '\r20%%\n'")
    out, _ = process.communicate(timeout=60)
    exact = b"\r10%\r20%\n"
    assert out.startswith(b"\r10%\n\r20%\n" if in_pod else exact) and Seen(run_id).log.startswith(
        exact
    )


PARENT = """\
import os, sys
from mlflow.tracking import MlflowClient
from mlflow.entities import RunTag
client, me = MlflowClient(), os.environ["MLFLOW_RUN_ID"]
def child(parent, **tags):
    run = client.create_run(os.environ["MLFLOW_EXPERIMENT_ID"], tags={"mlflow.parentRunId": parent, **tags}).info.run_id
    print(run, flush=True)
    return run
child(child(me))
child(me, **{"compute.job": "a-job"})
client.set_terminated(child(me), "FINISHED")
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("store", ["server", "sqlite"])
@pytest.mark.parametrize("code", [0, 3])
def test_runs_that_a_failed_run_left_running_end_with_it(
    request, runner, tmp_path, monkeypatch, store, code
):
    if store == "server":
        request.getfixturevalue("server")
    else:
        use(f"sqlite:///{tmp_path}/{code}.db", monkeypatch)  # MLflow keeps an engine for each path
    (tmp_path / "parent.py").write_text(PARENT)
    run_id, process = runner(f"{sys.executable} parent.py {code}")
    out, _ = process.communicate(timeout=120)
    ids = [line for line in out.decode().split() if len(line) == 32][:4]
    child, grandchild, with_job, finished = map(Seen, ids)
    assert (with_job.status, finished.status, finished.cause) == ("RUNNING", "FINISHED", None)
    if code == 0:
        assert (child.status, grandchild.status) == ("RUNNING", "RUNNING")
        return
    assert (child.status, child.cause, grandchild.status, grandchild.cause) == (
        "FAILED",
        "ExitCode",
        "FAILED",
        "ExitCode",
    )
    message = Seen(run_id).tags["compute.message"]
    assert child.tags["compute.message"] == f"Its parent run {run_id} ended: {message}"
    assert child.run.info.end_time and child.tags["compute.status"] == "FAILED"


def nested(parent, status="RUNNING", **tags):
    run_id = MlflowClient().create_run("0", tags={"mlflow.parentRunId": parent, **tags}).info.run_id
    if status != "RUNNING":
        MlflowClient().update_run(run_id, status)
    return run_id


@pytest.mark.parametrize("pod", [None, "pod-1"])
def test_which_nested_runs_have_nothing_else_to_tell_their_end(server, pod):
    """Neither a Job nor a runner of their own; a runner in the parent's pod has died with it."""
    parent = MlflowClient().create_run("0").info.run_id
    ended = [nested(parent), nested(parent, "SCHEDULED")]
    left = [
        nested(parent, **{"compute.job": "a"}),
        nested(parent, "SCHEDULED", **{"compute.target": "gpu", "compute.job": "a"}),
    ]
    left.append(nested(parent, **{"compute.target": "local", "compute.node": "elsewhere"}))
    (ended if pod else left).append(
        nested(parent, **{"compute.target": "local", "compute.node": "pod-1"})
    )
    run = connect(server.uri, parent)
    end_children(run, run.get(), Outcome("ended", "FAILED", "ExitCode", "It failed."), pod)
    assert {(Seen(run_id).status, Seen(run_id).cause) for run_id in ended} == {
        ("FAILED", "ExitCode")
    }
    assert {(Seen(run_id).status, Seen(run_id).cause) for run_id in left} == {
        ("RUNNING", None),
        ("SCHEDULED", None),
    }


def test_all_nested_runs_end_however_many_and_however_deep(proxy):
    parent = MlflowClient().create_run("0").info.run_id
    many, deep = [nested(parent) for _ in range(205)], [parent]
    for _ in range(25):
        deep.append(nested(deep[-1]))
    run = connect(proxy.uri, parent)
    end_children(run, run.get(), Outcome("ended", "KILLED", "Cancelled", None), None)
    assert {Seen(run_id).status for run_id in [*many, *deep[1:]]} == {"KILLED"}
    ended = [
        json.loads(call.body)["run_id"] for call in proxy.calls if call.endpoint == "runs/update"
    ]
    assert [run_id for run_id in ended if run_id in deep] == deep[:0:-1], (
        "what is below a run ends before it"
    )


def test_one_nested_run_that_is_deleted_meanwhile_does_not_keep_the_others(server):
    class Meanwhile(RestRun):
        def other(self, run_id):
            if run_id == children[1]:
                MlflowClient().delete_run(run_id)
            return super().other(run_id)

    parent, said = MlflowClient().create_run("0").info.run_id, []
    children = [nested(parent) for _ in range(3)]
    run = Meanwhile(server.uri, parent)
    end_children(run, run.get(), Outcome("ended", "FAILED", "ExitCode", None), None, said.append)
    assert [Seen(child).status for child in children] == ["FAILED", "RUNNING", "FAILED"]
    assert len(said) == 1 and said[0].startswith(f"could not end nested run {children[1]}: ")


@pytest.mark.parametrize("store", ["server", "sqlite"])
def test_a_tag_that_another_process_removes_meanwhile_does_not_count_as_a_deleted_run(
    request, tmp_path, monkeypatch, store
):
    if store == "server":
        uri = request.getfixturevalue("server").uri
    else:
        uri = f"sqlite:///{tmp_path}/tags.db"
        use(uri, monkeypatch)
    run_id = MlflowClient().create_run("0", tags={"b": "1"}).info.run_id
    connect(uri, run_id).remove_tags(["a", "b"])
    assert "b" not in Seen(run_id).tags


def test_a_tag_that_anyone_may_have_set_does_not_stop_the_reporting(server, runner):
    run_id, process = runner("sleep 2", tags={"compute.attempt": "many"})
    process.communicate(timeout=60)
    assert Seen(run_id).status == "FINISHED"


def test_a_run_marked_killed_that_exits_with_0_is_cancelled(server, runner):
    run_id, process = runner("echo up; sleep 4")
    wait_for(lambda: Seen(run_id).status == "RUNNING")
    MlflowClient().update_run(run_id, "KILLED")
    MlflowClient().log_batch(run_id, tags=[RunTag("other", "x")])
    process.communicate(timeout=60)
    assert (Seen(run_id).status, Seen(run_id).cause) == ("KILLED", "Cancelled")


def test_of_several_nodes_only_the_first_tells_the_status_and_each_keeps_its_log(
    server, runner, tmp_path
):
    def node(index, command):
        run_id, process = runner(
            command,
            env={"JOB_COMPLETION_INDEX": str(index), "MLFLOW_COMPUTE_POD": f"j-{index}"},
            topology=Topology(NODES, 2),
            keep_archive=keep(tmp_path) if index == 0 else None,
        )
        process.communicate(timeout=60)
        found = Seen(run_id)
        assert [len(found.artifacts(f"logs/node-{each}")) for each in range(2)] == [
            int(each == index) for each in range(2)
        ]
        return process.returncode, found

    code, first = node(0, "echo zero")
    assert (code, first.status, first.tags["compute.pod"]) == (0, "FINISHED", "j-0")
    code, second = node(1, "echo one; exit 3")
    assert (code, second.status, second.cause) == (3, "SCHEDULED", None)
    assert "compute.pod" not in second.tags
