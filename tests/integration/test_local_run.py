"""Runs on this machine: the runner as a child process, on a real MLflow server."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from tests.bed.runs import HERE, TRAIN, Seen, wait_for
from tests.bed.runs import failed_run_here as failed_run
from tests.bed.runs import run_here as run
from tests.bed.server import BIN, use


def test_params_metrics_artifacts_log_and_code_land_in_mlflow(server, project, seen):
    root = project(
        "python train.py {alpha}",
        parameters={"alpha": "{type: float, default: 0.5}"},
        train_dot_py=TRAIN,
    )
    found = seen(run(root, parameters={"alpha": "0.25"}, run_name="mine").run_id)
    assert found.status == "FINISHED" and found.tags["mlflow.runName"] == "mine"
    assert found.params == {"alpha": "0.25"} and found.metrics["loss"] == 0.25
    assert found.artifact("note.txt") == b"hello"
    assert b"alpha is 0.25\n" in found.log
    assert found.artifact("code/snapshot.tar.gz")[:2] == b"\x1f\x8b"
    assert (found.tags["compute.exit_code"], found.tags["compute.target"]) == ("0", "local")
    assert found.tags["compute.node"] and found.metrics["compute/run_s"] > 0
    assert found.run.info.end_time >= found.run.info.start_time


@pytest.mark.parametrize("code", [1, 3, 255])
def test_an_exit_code_is_a_failed_run_with_its_cause(server, project, last_run, code):
    found = failed_run(project(f"exit {code}"), last_run)
    assert (found.status, found.cause, found.tags["compute.exit_code"]) == (
        "FAILED",
        "ExitCode",
        str(code),
    )
    assert f"code {code}" in found.tags["compute.message"]


def test_a_command_killed_by_a_signal_names_it(server, project, last_run):
    found = failed_run(project("kill -KILL $$"), last_run)
    assert found.tags["compute.exit_code"] == "137" and "SIGKILL" in found.tags["compute.message"]


def test_a_script_that_says_finished_and_then_fails_is_failed(server, project, last_run):
    script = "import mlflow, sys\nwith mlflow.start_run(): pass\nsys.exit(4)\n"
    found = failed_run(project("python s.py", s_dot_py=script), last_run)
    assert (found.status, found.tags["compute.exit_code"]) == ("FAILED", "4")


@pytest.mark.parametrize(
    "value", ["a b", "$(touch pwned)", "; touch pwned", "`touch pwned`", "'\"\\", "--x=1 *", "é\n2"]
)
def test_a_parameter_value_reaches_the_script_as_it_is_and_no_shell(server, project, seen, value):
    script = "import sys, json\nprint('ARGS', json.dumps(sys.argv[1:]))\n"
    root = project("python s.py {value}", parameters={"value": "string"}, s_dot_py=script)
    log = seen(run(root, parameters={"value": value, "extra": value}).run_id).log.decode()
    assert json.loads(log.split("ARGS ")[1].splitlines()[0]) == [value, "--extra", value]
    assert not list(root.parent.rglob("pwned"))


def test_mlflow_run_streams_the_log_and_exits_as_the_run_did(server, project, mlflow_run, last_run):
    root = project("echo out; echo err >&2; exit 7")
    process = mlflow_run(root, "--run-name", "named", "--backend-config", json.dumps(HERE))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "out\nerr\n" in out and "ExitCode" in out
    assert f"{server.uri}/#/experiments/0/runs/" in err
    assert last_run().tags["mlflow.runName"] == "named"


def test_ctrl_c_kills_the_command_and_the_run_is_killed(server, project, mlflow_run, last_run):
    root = project("echo $$ > pid; echo started; sleep 300")
    process = mlflow_run(root, "--backend-config", json.dumps(HERE), start_new_session=True)
    wait_for(lambda: (root / "pid").exists() and (root / "pid").read_text().strip())
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    found = last_run()
    assert (found.status, found.cause, found.tags["compute.exit_code"]) == (
        "KILLED",
        "Cancelled",
        "143",
    )
    assert b"started" in found.log
    assert not Path(f"/proc/{(root / 'pid').read_text().strip()}").exists()


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace_period(server, project, tmp_path):
    from mlflow_backend.places.runner_zip import build
    from mlflow_runner.contract.submission import Submission

    run_id = MlflowClient().create_run("0").info.run_id
    submission = Submission(
        run_id=run_id, experiment_id="0", tracking_uri=server.uri, command="trap '' TERM; echo up; "
                                                                           "while :; do sleep 0.1; "
                                                                           "done",
        project_dir=str(tmp_path), scratch_dir=str(tmp_path / "scratch"), cache_dir=str(tmp_path), grace_period_s=1.0,
    )  # fmt: skip
    (tmp_path / "runner.pyz").write_bytes(build())
    (tmp_path / "run.json").write_text(submission.to_json())
    process = subprocess.Popen(
        [sys.executable, tmp_path / "runner.pyz", "run", tmp_path / "run.json"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    process.communicate(timeout=30)
    found = Seen(run_id)
    assert (found.status, found.tags["compute.exit_code"]) == ("KILLED", "137")


def test_cancel_waits_until_the_run_is_killed(server, project, seen):
    submitted = run(project("sleep 300"), synchronous=False)
    submitted.cancel()
    assert submitted.get_status() == "KILLED" and seen(submitted.run_id).cause == "Cancelled"


def test_a_given_run_is_continued_with_its_id(server, project, seen, monkeypatch, mlflow_run):
    root = project("echo {a}", parameters={"a": "string"})
    given = MlflowClient().create_run("0").info.run_id
    assert run(root, {**HERE, "RUN_ID": given}, parameters={"a": "1"}).run_id == given
    assert seen(given).status == "FINISHED" and seen(given).params == {"a": "1"}
    process = mlflow_run(root, "-P", "a=1", "--run-id", given, "--backend-config", json.dumps(HERE))
    assert process.communicate(timeout=60) and process.returncode == 0
    assert len(seen(given).artifacts("logs")) == 2, "the second log does not overwrite the first"


def test_the_run_of_the_process_that_submits_is_the_parent_and_is_never_continued(
    server, project, seen, monkeypatch
):
    """A script that MLflow's own `mlflow run` started: MLFLOW_RUN_ID is set and no run is active."""
    root = project("echo {a}", parameters={"a": "string"})
    driver = MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", driver)
    steps = [run(root, parameters={"a": value}).run_id for value in ("1", "2")]
    assert len({driver, *steps}) == 3 and seen(driver).status == "RUNNING"
    assert [seen(step).tags["mlflow.parentRunId"] for step in steps] == [driver, driver]


def test_a_parameter_that_mlflow_refuses_leaves_no_run_without_an_end(server, project, last_run):
    with pytest.raises(ExecutionException, match="its parameters or tags cannot be logged"):
        run(project("true"), parameters={"bad$name": "1"})
    assert (last_run().status, last_run().cause) == ("FAILED", "SubmitError")


def test_a_project_run_from_inside_a_run_gets_a_run_of_its_own(server, project, seen):
    inner = project("echo inner", name="inner")
    script = (
        f"import mlflow\nmlflow.projects.run({str(inner)!r}, backend='compute', "
        f"backend_config={HERE!r})\n"
    )
    outer = seen(run(project("python s.py", name="outer", s_dot_py=script)).run_id)
    assert outer.status == "FINISHED" and b"inner" in outer.log
    runs = MlflowClient().search_runs(["0"], filter_string=f"tags.`mlflow.source.name` = '{inner}'")
    assert [item.info.status for item in runs] == ["FINISHED"] and runs[
        0
    ].info.run_id != outer.run.info.run_id


def test_a_bare_folder_runs_a_python_or_shell_file(server, project, seen):
    root = project(s_dot_py="import sys; print('py', sys.argv[1:])", s_dot_sh="echo sh $@")
    assert b"py ['--x', '1']" in seen(run(root, entry_point="s.py", parameters={"x": 1}).run_id).log
    assert b"sh --x 1" in seen(run(root, entry_point="s.sh", parameters={"x": 1}).run_id).log


def test_a_git_repository_with_version_and_subdirectory(server, project, seen, tmp_path):
    root = (
        project("cat version.txt", name="repo/deep", version_dot_txt="old")
        if (tmp_path / "repo").mkdir() is None
        else None
    )

    def git(*a):
        return subprocess.run(
            ["git", "-C", root.parent, "-c", "user.name=a", "-c", "user.email=a@b", *a], check=True
        )

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "v1")
    (root / "version.txt").write_text("new")
    git("commit", "-qam", "two")
    uri = f"file://{root.parent}#deep"
    assert seen(run(uri, version="v1").run_id).log.startswith(b"old")
    (root / "version.txt").write_text("dirty")
    found = seen(run(f"{root.parent}#deep").run_id)
    assert found.log.startswith(b"dirty") and found.tags["mlflow.source.git.commit"]


def test_a_zip_archive(server, project, seen, tmp_path):
    root = project("cat note.txt", note_dot_txt="from a zip\n")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in root.iterdir():
            archive.write(path, path.name)
    assert b"from a zip" in seen(run(tmp_path / "p.zip").run_id).log


def test_path_and_uri_parameters(server, project, seen, tmp_path, monkeypatch):
    parameters = {
        "near": "{type: path, default: data/near.txt}",
        "here": "path",
        "far": "path",
        "uri": "uri",
    }
    root = project(
        "cat {near} {here} {far}; echo {uri}", parameters=parameters, data__near_dot_txt="near\n"
    )
    Path("here it is.txt").write_text("here\n")
    with mlflow.start_run() as source:
        mlflow.log_text("far\n", "deep/far.txt")
    values = {
        "here": "here it is.txt",
        "far": f"runs:/{source.info.run_id}/deep/far.txt",
        "uri": "s3://bucket/x",
    }
    found = seen(run(root, parameters=values).run_id)
    assert b"near\nhere\nfar\ns3://bucket/x\n" in found.log
    assert found.params["far"] == values["far"], "the params are what the user gave"


def test_a_tracking_uri_with_a_password_works_and_shows_it_nowhere(
    server, project, seen, monkeypatch, capfd
):
    use(server.uri.replace("//", "//ada:correct-horse@"), monkeypatch)
    root = project('echo ${{#MLFLOW_TRACKING_PASSWORD}} "$MLFLOW_TRACKING_URI"')
    run_id = run(root).run_id
    use(server.uri, monkeypatch)
    found = seen(run_id)
    assert f"13 {server.uri}\n".encode() in found.log
    ours = [
        line for line in capfd.readouterr().err.splitlines() if line.startswith("mlflow-compute:")
    ]
    assert (
        ours and "correct-horse" not in "".join(ours) + json.dumps(found.tags) + found.log.decode()
    )


def test_a_run_in_a_named_experiment(server, project, seen):
    found = seen(run(project("echo $MLFLOW_EXPERIMENT_ID"), experiment_name="named").run_id)
    experiment = MlflowClient().get_experiment_by_name("named").experiment_id
    assert found.run.info.experiment_id == experiment and found.log.startswith(experiment.encode())


def test_a_project_too_large_to_keep_still_runs_here(server, project, seen, capfd):
    root = project("echo ran")
    (root / "big.bin").write_bytes(os.urandom(21_000_000))
    found = seen(run(root).run_id)
    assert found.status == "FINISHED" and not found.artifacts("code")
    assert (
        "the code is not kept with the run: 21.0 MB in 2 files exceeds the limit of 20.0 MB in 2000 files"
    ) in capfd.readouterr().err


def test_a_remote_parameter_that_cannot_be_had_fails_the_run_with_its_cause(
    server, project, last_run
):
    root = project("cat {far}", parameters={"far": "path"})
    found = failed_run(root, last_run, parameters={"far": f"runs:/{'0' * 32}/none.txt"})
    assert (found.status, found.cause) == ("FAILED", "DownloadError")


def test_the_default_sqlite_store_is_the_one_of_the_current_directory(project, monkeypatch):
    script = "import mlflow\nwith mlflow.start_run(): mlflow.log_metric('m', 1)\n"
    root = project("python s.py", s_dot_py=script)
    use(f"sqlite:///{Path.cwd()}/mlflow.db", monkeypatch)
    found = Seen(run(root).run_id)
    assert found.status == "FINISHED" and found.metrics["m"] == 1 and b"FINISHED" in found.log
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    Path("elsewhere").mkdir()
    command = [
        str(BIN / "mlflow"),
        "run",
        str(root),
        "--backend",
        "compute",
        "-c",
        json.dumps(HERE),
    ]
    subprocess.run(command, check=True, cwd="elsewhere", env=env, capture_output=True)
    assert Path("elsewhere/mlflow.db").exists() and not (root / "mlflow.db").exists()


def test_what_a_project_may_not_be_is_one_line_and_no_run(server, project, mlflow_run, tmp_path):
    before = len(MlflowClient().search_runs(["0"]))
    needs = project("echo {a}", parameters={"a": "float"})
    for uri, words in [
        (needs, "'a'"),
        (tmp_path / "none", "none"),
        (project(name="empty", x_dot_txt=""), "main"),
    ]:
        process = mlflow_run(uri)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1 and "Traceback" not in err
        assert words in err.strip().splitlines()[-1]
    assert len(MlflowClient().search_runs(["0"])) == before


def test_lines_of_runs_at_the_same_time_say_which_run_they_are_of(server, project, capfd):
    command = "for i in 1 2 3; do echo line $i; sleep 0.5; done"
    started = [run(project(command, name=name), synchronous=False) for name in ("one", "two")]
    assert all(item.wait() for item in started)
    lines = capfd.readouterr().out.splitlines()
    for name, item in zip(("one", "two"), started, strict=True):
        assert f"[{name}-{item.run_id[:8]}] line 2" in lines


def test_what_was_decided_is_kept_with_the_run(server, project, tmp_path):
    from mlflow_backend.plan.plan import Plan

    root = project("echo {alpha}", parameters={"alpha": "float"})
    run_id = run(root, parameters={"alpha": 0.5}).run_id
    path = MlflowClient().download_artifacts(run_id, "compute/plan.json", str(tmp_path))
    plan = Plan.from_json(Path(path).read_text())
    assert (plan.source.uri, plan.source.parameters) == (str(root), {"alpha": "0.5"})
    assert (plan.place.target, plan.submission.command) == ("local", "echo 0.5")
