"""A namespace of runs as k8s/base protects it, and a person who may submit runs there and no more."""

import json
import subprocess

import pytest

from tests.bed.runs import wait_for
from tests.cluster import dev

NAMESPACE = "mlflow-policy"
SECRETS, ACCOUNTS = (
    "mlflow-compute/secrets=team, registry",
    "mlflow-compute/service-accounts=trainer",
)
"""The annotations of the namespace."""
MALLORY = ("--as=mallory", "--as-group=mlflow-users")
RUN = "0123456789abcdef" * 2
NAME = f"demo-{RUN[:8]}-0a1b2c3d4e"
LABELS = {
    "app.kubernetes.io/managed-by": "mlflow-compute",
    "mlflow-compute/run-id": RUN,
    "mlflow-compute/user": "mallory",
}
DRY = ("create", "--dry-run=server", "-f", "-")


@pytest.fixture(scope="session")
def guarded(cluster_access):
    """A namespace of runs where the policy holds already: the API server takes a moment to load it."""
    dev.add_namespace(cluster_access, NAMESPACE)
    dev.kubectl(
        cluster_access, "annotate", "--overwrite", "namespace", NAMESPACE, SECRETS, ACCOUNTS
    )
    forged = json.dumps(job(labels={**LABELS, "mlflow-compute/run-id": "none"}))
    stray = json.dumps(pod(LABELS))
    wait_for(
        lambda: all(call(cluster_access, *DRY, stdin=text).returncode for text in (forged, stray))
    )


@pytest.fixture
def attempt(cluster_access, guarded):
    """Run kubectl in the namespace, as a person who submits; nothing where it works, otherwise the
    API server's last line.
    """

    def attempt(*arguments, stdin=None, user=MALLORY):
        done = call(cluster_access, *user, *arguments, stdin=stdin and json.dumps(stdin))
        return done.stderr.strip().splitlines()[-1] if done.returncode else None

    return attempt


@pytest.fixture
def admin(cluster_access, guarded):
    return lambda *arguments, stdin=None: dev.kubectl(
        cluster_access, "-n", NAMESPACE, *arguments, stdin=stdin and json.dumps(stdin)
    )


def call(access, *arguments, stdin=None):
    command = [
        access.kubectl,
        "--kubeconfig",
        access.kubeconfig,
        "--context",
        access.context,
        "-n",
        NAMESPACE,
        *arguments,
    ]
    return subprocess.run(command, input=stdin, capture_output=True, text=True)


def pod(labels):
    container = {
        "name": "run",
        "image": "none",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec = {"restartPolicy": "Never", "securityContext": security, "containers": [container]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stray", "labels": labels},
        "spec": spec,
    }


def job(fields=None, name=NAME, labels=LABELS, pod_labels=None, **spec):
    """A Job of a run; `fields` of its pod: `containers` and `initContainers` are one mapping each."""
    template = pod(labels if pod_labels is None else pod_labels)
    plain = template["spec"]["containers"][0]
    for key, value in (fields or {}).items():
        template["spec"][key] = (
            [{**plain, "name": key.lower(), **value}]
            if key.lower().endswith("containers")
            else value
        )
    template = {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {"template": template, **spec},
    }
