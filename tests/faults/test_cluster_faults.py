"""What happens to the cluster itself: its API server, its node, its container runtime."""

import json
import time
import urllib.request

import pytest

from tests.bed.runs import Seen, wait_for
from tests.faults.watched import CLIENT, CONTROLLER

ETCD = "http://127.0.0.1:2379/v3/kv"


def running(started):
    for watched in started:
        wait_for(lambda one=watched: b"begun" in Seen(one.id).log, timeout_s=90)


def test_the_api_server_is_restarted_while_it_is_watched(faults, node):
    started = faults.start("echo begun; sleep 8; exit 3")
    running(started)
    node.kill("apiserver")
    time.sleep(1)
    node.revive()
    faults.check("API server killed and restarted", started, "FAILED", "ExitCode", timed=False)


def etcd(call, body):
    request = urllib.request.Request(f"{ETCD}/{call}", json.dumps(body).encode())
    return json.loads(urllib.request.urlopen(request, timeout=10).read())


def test_a_watch_whose_version_is_gone(faults, node, kubectl):
    """Everything before now is compacted and the API server forgets what it watched: 410 Gone for
    every watch (airflow#37369).
    """
    started = faults.start("echo begun; sleep 600")
    running(started)
    node.kill("apiserver")
    etcd("compaction", {"revision": etcd("range", {"key": "AA=="})["header"]["revision"]})
    node.revive()
    for watched in started:
        kubectl("-n", watched.namespace, "delete", "job", watched.run.job_name, "--wait=false")
    faults.check(
        "watch expired (410 Gone), then the Job deleted", started, "KILLED", "Deleted", timed=False
    )


def test_the_container_runtime_is_restarted(faults, node):
    started = faults.start("echo begun; sleep 10; echo whole")
    running(started)
    node.kill("containerd")
    node.revive()
    faults.check("container runtime killed and restarted", started, "FINISHED", None, timed=False)
    assert all(b"whole\n" in Seen(watched.id).log for watched in started)


def test_a_login_that_is_withdrawn_during_the_wait(
    faults, node, kubectl, cluster_access, monkeypatch, tmp_path
):
    """The kubeconfig's token is replaced, as a helper does it; the old one is refused from then on
    (airflow#31648).
    """
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ada"}}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "ada"},
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "mlflow-compute-submitter"},
               "subjects": [{"kind": "ServiceAccount", "name": "ada"}]}  # fmt: skip
    for item in (account, binding):
        kubectl("apply", "-f", "-", stdin=json.dumps(item))
    kubectl("create", "secret", "generic", "bound")
    token = tmp_path / "token"
    token.write_text(
        kubectl(
            "create",
            "token",
            "ada",
            "--bound-object-kind",
            "Secret",
            "--bound-object-name",
            "bound",
        )
    )
    access = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
    access["users"] = [{"name": "ada", "user": {"tokenFile": str(token)}}]
    for context in access["contexts"]:
        context["context"]["user"] = "ada"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(access))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    started = faults.start("echo begun; sleep 15; exit 3", watchers=[CLIENT])
    running(started)
    kubectl("delete", "secret", "bound")
    token.write_text(kubectl("create", "token", "ada"))
    node.kill("apiserver")  # open watches would go on with the old login
    node.revive()
    faults.check(
        "login withdrawn and renewed during the wait", started, "FAILED", "ExitCode", timed=False
    )


def test_a_log_that_the_kubelet_rotates(faults, node, capfd):
    """What is shown goes on after a rotation (airflow#23496), and what is kept is complete."""
    megabytes = (
        "for i in $(seq 1 3); do seq -f 'line %.0f of many, filled up to a good length for a line "
        "of a log' 1 20000; sleep 5; done"
    )
    started = faults.start(f"echo begun; {megabytes}; echo the last one", watchers=[CLIENT])
    faults.check("log rotated by the kubelet", started, "FINISHED", None, timed=False)
    assert "the last one" in capfd.readouterr().out
    log = Seen(started[0].id).log
    assert log.count(b"line 20000 of many") == 3 and log.count(b"\n") >= 60_000


def taint_the_lost_node(kubectl, watched):
    """As Kubernetes does where other nodes still answer: when all are lost, which the only one is,
    it holds back ("disruption mode").
    """
    name = watched[0].pods(kubectl)[0]["spec"]["nodeName"]

    def are_deleted():
        conditions = json.loads(kubectl("get", "node", name, "-o", "json"))["status"]["conditions"]
        if not any(item["type"] == "Ready" and item["status"] == "Unknown" for item in conditions):
            return False
        kubectl("taint", "node", name, "--overwrite", "node.kubernetes.io/unreachable:NoExecute")
        return all("deletionTimestamp" in one.pods(kubectl)[0]["metadata"] for one in watched)

    wait_for(are_deleted, timeout_s=90)


@pytest.mark.timeout(600)
def test_a_node_that_does_not_answer(faults, node, kubectl):
    """The kubelet is away for longer than every patience; the container goes on, which no watcher
    can know.
    """
    tolerated = {
        "key": "node.kubernetes.io/unreachable",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 1,
    }
    started = faults.start("echo begun; sleep 600", tolerations=[tolerated])
    retried = faults.start(
        'echo begun; test "$MLFLOW_COMPUTE_ATTEMPT" = 2 || sleep 600',
        watchers=[CONTROLLER],
        tolerations=[tolerated],
        retries=1,
    )
    running(started + retried)
    node.kill("kubelet")
    try:
        taint_the_lost_node(kubectl, started + retried)
        faults.check(
            "kubelet stopped for longer than the grace time",
            started,
            "FAILED",
            "NodeLost",
            timeout_s=120,
            timed=False,
        )
    finally:
        node.revive()
    faults.check(
        "the same, retries: 1, once there is a node again",
        retried,
        "FINISHED",
        None,
        timeout_s=200,
        timed=False,
    )
