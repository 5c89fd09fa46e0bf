"""Runs on the real cluster, in a namespace that enforces the `restricted` Pod Security Standard."""

import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from mlflow_backend.errors import AlreadyExists
from mlflow_backend.places.kubernetes.client.api import Cluster
from tests.bed.runs import LIST_PACKAGES, THERE, TRAIN, UNTIL_TOLD, Seen, job_of, wait_for
from tests.bed.runs import failed_run_there as failed_run
from tests.bed.runs import run_there as run


def test_the_same_project_runs_there_as_it_runs_here(cluster, project, seen, kubectl, capfd):
    root = project(
        "python train.py {alpha}",
        name="Wine & Co",
        parameters={"alpha": "float"},
        train_dot_py=TRAIN,
    )
    found = seen(run(root, parameters={"alpha": "0.25"}, run_name="mine").run_id)
    assert found.status == "FINISHED" and found.tags["mlflow.runName"] == "mine"
    assert found.params == {"alpha": "0.25"} and found.metrics["loss"] == 0.25
    assert found.artifact("note.txt") == b"hello" and b"alpha is 0.25\n" in found.log
    assert found.artifact("code/snapshot.tar.gz")[:2] == b"\x1f\x8b"
    assert (
        found.tags["compute.node"]
        and found.tags["compute.image"]
        and found.tags["compute.exit_code"] == "0"
    )
    out, err = capfd.readouterr()
    assert "alpha is 0.25" in out
    for words in (
        "submitted Job wine-co-",
        "scheduled on node",
        "running on node",
        "/#/experiments/0/runs/",
    ):
        assert words in err
    job = job_of(kubectl, found)
    assert job["metadata"]["labels"]["mlflow-compute/run-id"] == found.run.info.run_id
    assert found.run.info.run_id in job["metadata"]["annotations"]["mlflow-compute/run-url"]
    assert "alpha is 0.25" in kubectl("logs", f"job/{found.tags['compute.job']}")


def test_what_a_job_needs_is_its_own_and_goes_with_it(cluster, project, seen, kubectl):
    found = seen(run(project("true")).run_id)
    name, uid = found.tags["compute.job"], found.tags["compute.job_uid"]
    owner = json.loads(kubectl("get", "configmap", name, "-o", "json"))["metadata"][
        "ownerReferences"
    ]
    assert [(item["kind"], item["name"], item["uid"]) for item in owner] == [("Job", name, uid)]
    assert job_of(kubectl, found)["metadata"]["uid"] == uid
    kubectl("delete", "job", name)
    wait_for(lambda: not kubectl("get", "configmap", name, "--ignore-not-found"))


@pytest.fixture
def intruder(kubectl, monkeypatch):
    """Another submitter who sees a Job and creates an object of its name before the Job's own
    submitter does.
    """

    def come_first(kind, content):
        def create(self, item, dry_run=False):
            if item["kind"] == kind and not dry_run:
                item = {**item, "metadata": {"name": item["metadata"]["name"]}, **content}
                kubectl("create", "-f", "-", stdin=json.dumps(item))
                raise AlreadyExists(f"{kind} exists")
            return create_as_usual(self, item, dry_run)

        create_as_usual = Cluster.create
        monkeypatch.setattr(Cluster, "create", create)

    return come_first


@pytest.mark.parametrize(("kind", "content"), [
    ("ConfigMap", {"binaryData": {"runner.pyz": ""}, "immutable": False}),
    ("Secret", {"data": {"LD_PRELOAD": ""}}),
])  # fmt: skip
def test_an_object_of_the_run_s_name_that_others_made_is_not_used(
    cluster, project, last_run, kubectl, monkeypatch, intruder, kind, content
):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "mine")
    intruder(kind, content)
    with pytest.raises(
        ExecutionException, match=f"{kind} .*is not this run's: another user created it"
    ):
        run(project("true"))
    found = last_run()
    assert (found.status, found.cause) == ("FAILED", "SubmitError")
    wait_for(lambda: not kubectl("get", "job", found.tags["compute.job"], "--ignore-not-found"))


def test_a_url_with_a_password_reaches_the_command_and_nothing_that_others_can_read(
    cluster, project, seen, kubectl
):
    root = project("echo {url} | wc -c", parameters={"url": "string"})
    url = "https://ada:correct-horse@example.com/x"
    found = seen(run(root, parameters={"url": url}).run_id)
    assert found.log.startswith(b"%d\n" % (len(url) + 1))
    assert found.params == {"url": "https://example.com/x"}
    name = found.tags["compute.job"]
    everything = (
        kubectl("get", "jobs,pods,configmaps", "-o", "yaml")
        + kubectl("logs", f"job/{name}")
        + found.log.decode()
    )
    bundle = json.loads(kubectl("get", "configmap", name, "-o", "json"))["binaryData"]
    assert "correct-horse" not in everything and set(bundle) == {"runner.pyz", "snapshot.tar.gz"}
    assert "correct-horse" not in json.dumps(found.tags) and b"correct-horse" not in found.artifact(
        "code/snapshot.tar.gz"
    )


def test_an_experiment_whose_artifacts_lie_in_a_folder_is_refused_before_a_run_exists(
    cluster, project, last_run, tmp_path
):
    client = mlflow.tracking.MlflowClient()
    experiment = client.create_experiment(
        "in a folder", artifact_location=str(tmp_path / "artifacts")
    )
    with pytest.raises(
        ExecutionException,
        match=f"experiment {experiment}: stores artifacts in the folder .*, which pods do not have",
    ):
        run(project("true"), experiment_id=experiment)
    assert not client.search_runs([experiment])


def test_a_snapshot_too_large_for_a_config_map_travels_as_an_artifact(
    cluster, project, seen, kubectl
):
    root = project("sha256sum large.bin")
    (root / "large.bin").write_bytes(os.urandom(2_000_000))
    expected = subprocess.run(
        ["sha256sum", root / "large.bin"], capture_output=True, text=True
    ).stdout.split()[0]
    found = seen(run(root).run_id)
    assert expected.encode() in found.log
    assert found.artifacts("code") == ["code/snapshot.tar.gz"]


def test_a_command_means_there_what_it_means_here(cluster, project, seen):
    root = project("echo pid $$ $(echo sub) '$(MLFLOW_RUN_ID) $$(HOME)' $((1+1)) $")
    assert re.search(
        rb"pid \d+ sub \$\(MLFLOW_RUN_ID\) \$\$\(HOME\) 2 \$\n", seen(run(root).run_id).log
    )


@pytest.mark.parametrize("code", [1, 7])
def test_a_failure_there_is_an_error_here_with_its_cause(cluster, project, last_run, code, capfd):
    found = failed_run(project(f"echo oh; exit {code}"), last_run)
    assert (found.status, found.cause, found.tags["compute.exit_code"]) == (
        "FAILED",
        "ExitCode",
        str(code),
    )
    assert "FAILED, ExitCode" in capfd.readouterr().err


def test_mlflow_run_waits_streams_and_exits_as_the_run_did(cluster, project, mlflow_run, last_run):
    process = mlflow_run(
        project("echo out; exit 7"), "--run-name", "named", "--backend-config", json.dumps(THERE)
    )
    out, err = process.communicate(timeout=120)
    assert (
        process.returncode == 1 and "out\n" in out and "ExitCode" in err and "Traceback" not in err
    )
    assert last_run().tags["mlflow.runName"] == "named"


def test_without_stream_output_mlflow_run_submits_and_returns(
    cluster, project, mlflow_run, last_run
):
    root = project("python s.py", s_dot_py=UNTIL_TOLD)
    process = mlflow_run(root, "--backend-config", json.dumps({**THERE, "STREAM_OUTPUT": "False"}))
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "out" not in out
    assert last_run().status in ("SCHEDULED", "RUNNING")
    mlflow.MlflowClient().set_tag(last_run().run.info.run_id, "told", "yes")
    wait_for(lambda: last_run().status == "FINISHED")
    assert last_run().log.startswith(b"out\n")


def test_cancel_kills_the_run_and_leaves_no_pod(cluster, project, seen, kubectl):
    submitted = run(project("echo up; sleep 300"), synchronous=False)
    wait_for(lambda: seen(submitted.run_id).artifacts("logs"))
    submitted.cancel()
    found = seen(submitted.run_id)
    assert submitted.get_status() == "KILLED" and found.cause == "Cancelled"
    assert not kubectl(
        "get", "pods,jobs", "-l", f"mlflow-compute/run-id={submitted.run_id}", "-o", "name"
    )
    assert b"up\n" in found.log


def test_ctrl_c_cancels_the_run_there(cluster, project, mlflow_run, last_run, kubectl):
    process = mlflow_run(
        project("echo up; sleep 300"), "--backend-config", json.dumps(THERE), start_new_session=True
    )
    for line in process.stdout:
        if line == "up\n":
            break
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=90)
    assert process.returncode == 130
    assert (last_run().status, last_run().cause) == ("KILLED", "Cancelled")
    assert not kubectl(
        "get", "jobs", "-l", f"mlflow-compute/run-id={last_run().run.info.run_id}", "-o", "name"
    )


def test_a_run_that_cannot_be_scheduled_says_why(cluster, project, capfd):
    submitted = run(project("true"), {**THERE, "resources": {"memory": "900Gi"}}, synchronous=False)
    waiting = threading.Thread(target=submitted.wait)
    waiting.start()
    said = []
    wait_for(lambda: said.append(capfd.readouterr().err) or "Insufficient memory" in "".join(said))
    submitted.cancel()
    waiting.join(30)
    assert submitted.get_status() == "KILLED" and not waiting.is_alive()


def test_files_of_parameters_travel_with_the_run(cluster, project, seen, tmp_path):
    parameters = dict.fromkeys(("inside", "ignored", "file", "folder", "far"), "path") | {
        "uri": "uri"
    }
    root = project("cat {inside} {ignored} {file} {folder}/deep/x.txt {far}; python s.py {uri}", parameters=parameters,
                   data__in_dot_txt="inside\n", out_dot_txt="ignored\n", _dot_mlflowignore="out.txt\n",
                   s_dot_py="import sys, urllib.request; "
                            "print(urllib.request.urlopen(sys.argv[1]).read().decode())")  # fmt: skip
    Path("a file.txt").write_text("file\n")
    Path("folder/deep").mkdir(parents=True)
    Path("folder/deep/x.txt").write_text("folder\n")
    with mlflow.start_run() as source:
        mlflow.log_text("far\n", "far.txt")
    values = {"inside": "data/in.txt", "ignored": str(root / "out.txt"), "file": "a file.txt", "folder": "folder",
              "far": f"runs:/{source.info.run_id}/far.txt", "uri": Path("a file.txt").absolute().as_uri()}  # fmt: skip
    found = seen(run(root, parameters=values).run_id)
    assert b"inside\nignored\nfile\nfolder\nfar\nfile\n" in found.log
    assert found.params["file"] == "'a file.txt'", "what the user gave, as MLflow logs it"


def test_an_environment_is_made_in_the_pod(cluster, project, seen):
    root = project(
        "python s.py",
        python_env_dot_yaml="dependencies: [six==1.16.0, mlflow-skinny<3.18]\n",
        s_dot_py=LIST_PACKAGES,
    )
    found = seen(run(root).run_id)
    assert b"'six'" in found.log and b"'scikit-learn'" not in found.log
    assert found.metrics["compute/environment_s"] > 0 and found.tags["compute.environment"]


def test_a_gpu_is_asked_for_by_the_resource_that_counts_it(cluster, project, seen, kubectl):
    """With a pretend resource on the node; the scheduler treats it as any other."""
    resource = "mlflow-compute.test/gpu"
    node = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    patch = json.dumps({"status": {"capacity": {resource: "1"}}})
    kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", patch)
    wait_for(
        lambda: (
            resource
            in json.loads(kubectl("get", "node", node, "-o", "json"))["status"]["allocatable"]
        )
    )
    found = seen(
        run(
            project("echo ran"), {**THERE, "gpu_resource": resource, "resources": {"gpu": 1}}
        ).run_id
    )
    assert found.status == "FINISHED"
    container = job_of(kubectl, found)["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {resource: "1"}


def test_credentials_are_in_a_secret_of_the_job_and_nowhere_else(
    cluster, project, seen, kubectl, monkeypatch, tmp_path
):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct-horse")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    certificate = tmp_path / "ca.pem"
    certificate.write_text("a certificate\n")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    command = (
        "test ${{#MLFLOW_TRACKING_PASSWORD}} = 13 && cat "
        '"$MLFLOW_TRACKING_SERVER_CERT_PATH"; echo $MLFLOW_HTTP_REQUEST_TIMEOUT'
    )
    found = seen(run(project(command)).run_id)
    assert b"a certificate\n77\n" in found.log
    name = found.tags["compute.job"]
    everything = (
        kubectl("get", "jobs,pods,configmaps", "-o", "yaml")
        + kubectl("describe", "job", name)
        + found.log.decode()
    )
    assert "correct-horse" not in everything and "correct-horse" not in json.dumps(found.tags)
    owner = json.loads(kubectl("get", "secret", name, "-o", "json"))["metadata"]["ownerReferences"][
        0
    ]
    assert (owner["kind"], owner["name"]) == ("Job", name)
    kubectl("delete", "job", name)
    wait_for(lambda: not kubectl("get", "secret", name, "--ignore-not-found"))


def test_a_secret_that_the_target_names_is_used_and_none_is_made(
    cluster, project, seen, kubectl, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "mine")
    kubectl(
        "create",
        "secret",
        "generic",
        "team",
        "--from-literal=MLFLOW_TRACKING_TOKEN=ours",
        "--from-literal=OTHER=x",
    )
    try:
        found = seen(
            run(project("echo $MLFLOW_TRACKING_TOKEN $OTHER"), {**THERE, "secret": "team"}).run_id
        )
        assert found.log.startswith(b"ours x\n")
        assert not kubectl("get", "secret", found.tags["compute.job"], "--ignore-not-found")
    finally:
        kubectl("delete", "secret", "team")


def test_the_runner_reaps_orphans_as_pid_1_must(cluster, project, seen):
    script = """
import os, time
alive, kept = os.pipe()
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.2); os._exit(0)
        os._exit(0)
for _ in range(20): os.wait()
os.close(kept); os.read(alive, 1)  # until the last orphan has ended
def state(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"
def zombies():
    return [state(pid) for pid in os.listdir("/proc") if pid.isdigit()].count("Z")
for _ in range(600):
    if zombies(): time.sleep(0.1)
print("ZOMBIES", zombies(), "PID1", open("/proc/1/cmdline").read().split("\\0")[1])
"""
    log = seen(run(project("python s.py", s_dot_py=script)).run_id).log
    assert b"ZOMBIES 0 PID1 -I" in log


def test_several_runs_of_one_client_are_waited_for_at_once(cluster, project, seen):
    root = project("sleep 1; exit {code}", parameters={"code": "string"})
    before = watches()
    submitted = [
        run(root, parameters={"code": code}, synchronous=False) for code in ("0", "1", "0", "2")
    ]
    results = [None] * 4

    def wait(index):
        results[index] = submitted[index].wait()

    threads = [threading.Thread(target=wait, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert results == [True, False, True, False]
    assert watches() - before <= 1
    assert [seen(item.run_id).status for item in submitted] == [
        "FINISHED",
        "FAILED",
        "FINISHED",
        "FAILED",
    ]


def watches():
    return [thread.name for thread in threading.enumerate()].count("watch-Pod")


def test_a_run_of_today_can_be_continued_there(cluster, project, seen):
    given = mlflow.tracking.MlflowClient().create_run("0").info.run_id
    root = project("exit {code}", parameters={"code": "string"})
    with pytest.raises(ExecutionException):
        run(root, {**THERE, "RUN_ID": given}, parameters={"code": "1"})
    assert seen(given).cause == "ExitCode"
    with pytest.raises(ExecutionException, match="cannot be continued"):
        run(root, {**THERE, "RUN_ID": given}, parameters={"code": "0"})


def test_a_person_with_the_role_of_k8s_base_can_do_all_of_it(
    cluster, cluster_access, project, seen, monkeypatch
):
    submitter = Path(cluster_access.kubeconfig).with_name("submitter.kubeconfig")
    if not submitter.exists():
        pytest.skip(
            "needs a user in the group mlflow-users: the cluster that is built here has one"
        )
    monkeypatch.setenv("KUBECONFIG", str(submitter))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    assert Seen(run(project("echo $MLFLOW_TRACKING_TOKEN")).run_id).status == "FINISHED"
    submitted = run(project("sleep 300"), synchronous=False)
    submitted.cancel()
    assert submitted.get_status() == "KILLED"


def test_the_example_goes_on_from_its_checkpoint_after_an_eviction(cluster, seen, kubectl):
    root = Path(__file__).parents[2] / "examples/resume"
    submitted = run(root, {**THERE, "retries": 2}, synchronous=False)
    wait_for(lambda: seen(submitted.run_id).metrics.get("loss"))
    pod = json.loads(kubectl("get", "pods", "-l", f"job-name={submitted.job_name}", "-o", "json"))[
        "items"
    ][0]["metadata"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod["name"], "namespace": pod["namespace"]},
    }
    path = f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    assert submitted.wait() is True
    found = seen(submitted.run_id)
    stopped = int(found.log.split(b"stopped at step ")[1].split(b",")[0])
    assert (
        stopped > 0
        and b"attempt 2 begins at step %d\n" % stopped in found.log
        and b"finished at step 60\n" in found.log
    )
    steps = [
        metric.step for metric in mlflow.MlflowClient().get_metric_history(submitted.run_id, "loss")
    ]
    assert steps == list(range(1, 61)), "each step once, across both pods"
