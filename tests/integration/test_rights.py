"""What people who submit may do with the Roles of k8s/base, and what they may not, tried on a real
API server as one of them.
"""

import json
import re
import subprocess
import textwrap

import pytest
import yaml

from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes import shared_targets
from tests.bed.people import DRY, MALLORY, NAMESPACE, call, job
from tests.cluster import dev

ALLOWED = {
    "jobs": ["create", "delete", "get", "list", "watch"],
    "configmaps": ["create", "get"],
    "secrets": ["create"],
    "pods": ["get", "list", "watch"],
    "pods/log": ["get"],
    "events": ["list"],
    "namespaces": ["get"],
}


def rights(access, user, namespace):
    """The verbs on each resource, and on its named objects where a rule names some."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    rules = json.loads(
        call(access, *user, "create", "--raw", path, "-f", "-", stdin=json.dumps(review)).stdout
    )["status"]["resourceRules"]
    return {
        (resource, *rule.get("resourceNames", ())): sorted(rule["verbs"])
        for rule in rules
        for resource in rule["resources"]
    }


@pytest.mark.parametrize(
    ("namespace", "allowed"),
    [
        (NAMESPACE, {(resource,): verbs for resource, verbs in ALLOWED.items()}),
        (dev.SYSTEM, {("configmaps", "mlflow-compute-targets"): ["get"]}),
        ("default", {}),
    ],
)
def test_people_have_exactly_the_rights_that_runs_need(cluster_access, guarded, namespace, allowed):
    everybody = rights(cluster_access, MALLORY[:1], namespace)
    found = rights(cluster_access, MALLORY, namespace)
    assert {key: verbs for key, verbs in found.items() if key not in everybody} == allowed


CONTROLLER_ALLOWED = {
    "jobs": ["delete", "get", "list", "watch"],
    "pods": ["delete", "list", "watch"],
    "events": ["list"],
    "namespaces": ["get"],
}


@pytest.mark.parametrize(
    ("namespace", "allowed"),
    [
        (NAMESPACE, {(resource,): verbs for resource, verbs in CONTROLLER_ALLOWED.items()}),
        (
            dev.SYSTEM,
            {("leases",): ["create"], ("leases", "mlflow-compute-controller"): ["get", "update"]},
        ),
        ("default", {}),
    ],
)
def test_the_controller_has_exactly_the_rights_that_it_needs(
    cluster_access, guarded, namespace, allowed
):
    account = (f"--as=system:serviceaccount:{dev.SYSTEM}:mlflow-compute-controller",)
    everybody = rights(cluster_access, MALLORY[:1], namespace)
    assert {
        key: verbs
        for key, verbs in rights(cluster_access, account, namespace).items()
        if key not in everybody
    } == allowed


@pytest.fixture
def shared(admin):
    """The ConfigMap of the shared targets."""
    admin("-n", dev.SYSTEM, "delete", "--ignore-not-found", "configmap", "mlflow-compute-targets")
    admin(
        "-n",
        dev.SYSTEM,
        "create",
        "configmap",
        "mlflow-compute-targets",
        "--from-literal=mlflow-compute.yaml=",
    )
    yield
    admin("-n", dev.SYSTEM, "delete", "configmap", "mlflow-compute-targets")


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "configmap", "mlflow-compute-targets", "--from-literal=mlflow-compute.yaml=x"),
        (
            "create",
            "configmap",
            "mlflow-compute-controller",
            "--from-literal=HTTPS_PROXY=http://evil.example",
        ),
        (
            "patch",
            "configmap",
            "mlflow-compute-targets",
            "--type=merge",
            "-p",
            '{"data":{"mlflow-compute.yaml":"x"}}',
        ),
        (
            "patch",
            "configmap",
            "mlflow-compute-controller",
            "--type=merge",
            "-p",
            '{"data":{"HTTPS_PROXY":"x"}}',
        ),
        ("get", "secret", "mlflow-compute-controller"),
        ("create", "token", "mlflow-compute-controller"),
        (*DRY,),
    ],
)
def test_people_may_not_touch_what_the_controller_and_the_shared_targets_are_made_of(
    attempt, shared, arguments
):
    stdin = job(labels={}) if arguments == DRY else None
    assert 'User "mallory" cannot' in attempt("-n", dev.SYSTEM, *arguments, stdin=stdin)


def test_people_may_read_the_shared_targets(attempt, shared):
    assert attempt("-n", dev.SYSTEM, "get", "configmap", "mlflow-compute-targets") is None


def test_without_a_right_to_read_them_the_shared_targets_are_one_line(
    cluster_access, admin, tmp_path, monkeypatch
):
    access = json.loads(admin("config", "view", "--raw", "-o", "json"))
    access["users"] = [
        {"name": user["name"], "user": {"token": admin("create", "token", "default")}}
        for user in access["users"]
    ]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(access))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    with pytest.raises(
        ClusterError,
        match="namespace mlflow-compute-system: cannot get ConfigMap mlflow-compute-targets",
    ) as caught:
        shared_targets.load()
    assert "\n" not in str(caught.value)


def test_a_cluster_without_the_namespace_of_the_shared_targets_has_none(
    cluster_access, monkeypatch
):
    monkeypatch.setenv("KUBECONFIG", cluster_access.kubeconfig)
    monkeypatch.setattr(shared_targets, "NAMESPACE", "mlflow-nowhere")
    assert shared_targets.load() is None


PAGE = (dev.ROOT / "k8s/README.md").read_text()
OVERLAYS = [
    text
    for block in re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE)
    if "resources:" in (text := textwrap.dedent(block))
]


@pytest.mark.parametrize(
    ("overlay", "shown"),
    [
        (
            0,
            {
                ("Namespace", "ml-team", None),
                ("RoleBinding", "mlflow-compute-submitters", "ml-team"),
            },
        ),
        (1, {("Deployment", "mlflow-compute-controller", dev.SYSTEM)}),
    ],
)
def test_the_overlays_that_the_page_shows_are_built_as_it_says(
    cluster_access, tmp_path, overlay, shown
):
    (tmp_path / "k8s").symlink_to(dev.ROOT / "k8s")
    folder = tmp_path / "overlay"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(OVERLAYS[overlay])
    built = subprocess.run(
        [cluster_access.kubectl, "kustomize", folder], capture_output=True, text=True, check=True
    ).stdout
    objects = list(yaml.safe_load_all(built))
    assert shown <= {
        (item["kind"], item["metadata"]["name"], item["metadata"].get("namespace"))
        for item in objects
    }
