"""What happens to a pod, and to the Job that has it."""

import json
import subprocess

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from tests.bed.proxy import Proxy
from tests.bed.runs import Seen, wait_for
from tests.faults.watched import CLIENT, COMMAND, CONTROLLER, command
from tests.packages.index import add_wheel, serve

EAT = "x = bytearray(200_000_000)"
SLOT = "mlflow-compute.test/slot"


def running(started, word=b"begun"):
    for watched in started:
        wait_for(lambda one=watched: word in Seen(one.id).log, timeout_s=90)


SLEEP = "echo begun; sleep 600"


def test_an_exit_code(faults):
    faults.check("exit code 3", faults.start("exit 3"), "FAILED", "ExitCode")


def test_a_child_killed_for_memory(faults):
    started = faults.start("python -c 'import subprocess, sys; "
                           f"sys.exit(subprocess.call([sys.executable, \"-c\", \"{EAT}\"]) and 1)'",
                           resources={"memory": "96Mi"})  # fmt: skip
    faults.check("child killed for memory", started, "FAILED", "OOMKilled")


def test_a_command_killed_without_want_of_memory(faults):
    """An exit code of 137 alone is no proof of it."""
    faults.check("exit code 137, memory enough", faults.start("kill -9 $$"), "FAILED", "ExitCode")


def test_the_runner_and_all_killed_from_outside(faults, kubectl, node):
    """What the kubelet does on cgroup v2 to a container out of memory, but without its reason."""
    started = faults.start(SLEEP)
    running(started)
    for watched in started:
        wait_for(lambda one=watched: one.pods(kubectl)[-1]["status"]["phase"] == "Running")
        container = watched.pods(kubectl)[-1]["status"]["containerStatuses"][0][
            "containerID"
        ].removeprefix("containerd://")
        kill = [
            "ctr",
            "-a",
            node.CONTAINERD,
            "-n",
            "k8s.io",
            "tasks",
            "kill",
            "-s",
            "KILL",
            container,
        ]
        subprocess.run(kill, check=True, capture_output=True)
    faults.check("SIGKILL of the whole container", started, "FAILED", "Killed")


def test_a_pod_deleted(faults, kubectl):
    started = faults.start(SLEEP)
    running(started)
    for watched in started:
        kubectl("-n", watched.namespace, "delete", "pod", watched.pod_name(kubectl), "--wait=false")
    faults.check("kubectl delete pod", started, "KILLED", "Deleted")


def test_a_job_deleted(faults, kubectl):
    started = faults.start(SLEEP)
    running(started)
    for watched in started:
        kubectl("-n", watched.namespace, "delete", "job", watched.run.job_name, "--wait=false")
    faults.check("kubectl delete job", started, "KILLED", "Deleted")


def test_a_job_deleted_before_it_started(faults, kubectl):
    started = faults.start("true", resources={"cpu": 4000})
    for watched in started:
        kubectl("-n", watched.namespace, "delete", "job", watched.run.job_name, "--wait=false")
    faults.check("kubectl delete job, before its start", started, "KILLED", "Deleted")


def evict(kubectl, watched):
    name = watched.pod_name(kubectl)
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": watched.namespace},
    }
    path = f"/api/v1/namespaces/{watched.namespace}/pods/{name}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


def test_an_eviction_by_the_api(faults, kubectl):
    started = faults.start(SLEEP)
    running(started)
    for watched in started:
        evict(kubectl, watched)
    faults.check("eviction by the API", started, "FAILED", "Evicted")


def test_an_eviction_that_the_command_takes_with_exit_0(faults, kubectl):
    """No success, though the container ended with one (tekton#6145)."""
    started = faults.start("trap 'exit 0' TERM; echo begun; sleep 600 & wait")
    running(started)
    for watched in started:
        evict(kubectl, watched)
    faults.check("eviction, the command exits 0 on SIGTERM", started, "FAILED", "Evicted")


def test_a_drained_node_with_retries(faults, kubectl):
    """The next pod goes on in the same run; it can be made once the node takes pods again."""
    started = faults.start('echo begun; test "$MLFLOW_COMPUTE_ATTEMPT" = 2 || sleep 600', retries=1)
    running(started)
    name = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    try:
        kubectl(
            "drain",
            name,
            "--pod-selector",
            "mlflow-compute/run-id",
            "--delete-emptydir-data",
            "--timeout=60s",
        )
    finally:
        kubectl("uncordon", name)
    faults.check("kubectl drain, retries: 1", started, "FINISHED", None)
    assert {Seen(watched.id).tags["compute.attempt"] for watched in started} == {"2"}


@pytest.fixture
def slots(kubectl):
    """Three of a pretend resource on the node."""
    name = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    kubectl(
        "patch",
        "node",
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": {"capacity": {SLOT: "3"}}}),
    )
    wait_for(
        lambda: (
            SLOT in json.loads(kubectl("get", "node", name, "-o", "json"))["status"]["allocatable"]
        ),
        timeout_s=60,
    )


def test_a_pod_of_higher_priority(faults, kubectl, slots, cluster_access):
    from tests.cluster import dev

    started = faults.start(SLEEP, resources={SLOT: 1})
    running(started)
    dev.kubectl(cluster_access, "apply", "-f", "-", stdin=json.dumps(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "mlflow-compute-test"}, "value": 1000}
    ))  # fmt: skip
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "important"}, "spec": {
        "priorityClassName": "mlflow-compute-test", "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": dev.RUNNER_IMAGE, "command": ["sleep", "1"], "resources": {"limits": {SLOT: "3"}},
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}]}}  # fmt: skip
    kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    try:
        faults.check("preempted by a pod of higher priority", started, "FAILED", "Preempted")
    finally:
        kubectl("delete", "pod", "important", "--wait=false")


def test_a_full_disk(faults):
    """The command's own folder, where the runner keeps its log and its state too."""
    template = {
        "spec": {
            "volumes": [{"name": "work", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}}]
        }
    }
    started = faults.start(
        "echo begun; dd if=/dev/zero of=fill bs=64k; seq 1 100000; exit 5", pod_template=template
    )
    faults.check("disk full", started, "FAILED", "ExitCode")
    assert {Seen(watched.id).tags["compute.exit_code"] for watched in started} == {"5"}


def test_what_takes_its_time(faults):
    """Started all at once: a Job waits ten seconds before its next pod, and the kubelet measures
    disks once a minute.
    """
    again = 'test "$MLFLOW_COMPUTE_ATTEMPT" = 2 || exit 75'
    disk = faults.start(
        "dd if=/dev/zero of=fill bs=1M count=200; echo begun; sleep 600",
        resources={"ephemeral_storage": "50Mi"},
    )
    retried = faults.start(again, retries=1, retry_on=[75])
    used_up = faults.start("exit 75", retries=1, retry_on=[75])
    faults.check("deadline", faults.start("sleep 600", deadline=3), "FAILED", "DeadlineExceeded")
    faults.check("exit code 75, retry_on: [75]", retried, "FINISHED", None)
    faults.check("exit code 75 twice, retries: 1", used_up, "FAILED", "ExitCode")
    faults.check("more disk than its limit", disk, "FAILED", "Evicted", timeout_s=200)


def cancel_as_each_can(started):
    for watched in started:
        if watched.watcher == CLIENT:
            watched.run.cancel()
        elif watched.watcher == CONTROLLER:
            MlflowClient().set_terminated(watched.id, "KILLED")
        else:
            assert command("cancel", watched.id).returncode == 0


def cancel(faults, kubectl, when, started):
    """Each by a way of its own; then neither Job nor pod is left."""
    cancel_as_each_can(started)
    faults.check(when, started, "KILLED", "Cancelled", timed=False)
    for watched in started:
        wait_for(
            lambda one=watched: (
                not kubectl(
                    "-n", one.namespace, "get", "job", one.run.job_name, "--ignore-not-found"
                )
            ),
            timeout_s=60,
        )
        wait_for(lambda one=watched: not one.pods(kubectl), timeout_s=60)


def test_cancel_while_it_runs(faults, kubectl):
    started = faults.start("trap 'echo saving; exit 1' TERM; echo begun; sleep 600 & wait")
    running(started)
    cancel(faults, kubectl, "cancel while it runs", started)
    assert all(b"saving\n" in Seen(watched.id).log for watched in started)


def test_cancel_of_a_command_that_ignores_it(faults, kubectl):
    started = faults.start("trap '' TERM; echo begun; while true; do sleep 1; done")
    running(started)
    cancel(faults, kubectl, "cancel, SIGTERM ignored", started)


def test_cancel_before_it_is_scheduled(faults, kubectl):
    cancel(
        faults,
        kubectl,
        "cancel while no node takes it",
        faults.start("true", resources={"cpu": 4000}),
    )


def test_cancel_while_its_image_cannot_be_had(faults, kubectl):
    started = faults.start("true", image="localhost:5999/none:1")
    for watched in started:
        wait_for(
            lambda one=watched: any(
                why in json.dumps(one.pods(kubectl)) for why in ("ErrImagePull", "ImagePullBackOff")
            )
        )
    cancel(faults, kubectl, "cancel while its image cannot be pulled", started)


@pytest.fixture
def index(cluster_access, tmp_path, monkeypatch):
    """The way to an index with one package, which is the default index here and in pods."""
    if not cluster_access.host:
        pytest.skip("pods of this cluster cannot reach this machine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    add_wheel(tmp_path / "index", "mlflow", mlflow.__version__)
    with serve(tmp_path / "index") as address:
        way = Proxy(int(address.rpartition(":")[2]))
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://{cluster_access.host}:{way.port}/simple")
        yield way
        way.close()


def test_cancel_while_its_environment_is_made(faults, kubectl, index):
    """The index answers while the lock is made, and no more once pods ask it for the package."""
    files = {"python_env_dot_yaml": "dependencies: [mlflow]\n"}
    locked = command(
        "env", "lock", str(faults.prepare(COMMAND, "true", files)), "--target", "dev-cluster"
    )
    assert locked.returncode == 0, locked.stderr
    index.mode = "hang"
    started = faults.start("echo begun", files=files)
    running(started, b"building it from 1 Python")
    cancel(faults, kubectl, "cancel while its environment is made", started)
    assert not any(b"begun\n" in Seen(watched.id).log for watched in started)


def test_a_pod_collected_before_its_status_was_read(faults, kubectl, proxy):
    """The runner cannot tell either; the Job keeps the exit code (argo-workflows#4565)."""
    proxy.mode = "refuse"
    started = faults.start("exit 3", watchers=[COMMAND], tracking_uri=proxy.uri)
    wait_for(
        lambda: any(pod["status"]["phase"] == "Failed" for pod in started[0].pods(kubectl)),
        timeout_s=60,
    )
    kubectl(
        "-n",
        started[0].namespace,
        "delete",
        "pod",
        started[0].pod_name(kubectl),
        "--force",
        "--grace-period=0",
    )
    faults.check("pod collected before its status was read", started, "FAILED", "ExitCode")
