"""What the admission policies of k8s/policy let the Jobs of people do, tried on a real API server."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.bed.people import DRY, LABELS, NAME, NAMESPACE, RUN, SECRETS, job, pod
from tests.bed.runs import Seen, wait_for
from tests.bed.runs import run_there as run

ROOT = Path(__file__).parents[2]
ADVICE = (
    f"use one of [{NAME}, team, registry], or have an administrator add the Secret to the "
    "annotation mlflow-compute/secrets of the namespace"
)


def denied(message, policy="jobs", kind="jobs.batch", name=NAME):
    line = f"""{kind} "{name}" is forbidden: ValidatingAdmissionPolicy 'mlflow-compute-{policy}' with binding 'mlflow-compute-{policy}' """
    return f"{line}denied request: {message}"


def reason(line):
    """What the API server said, without kubectl's words about where the object came from."""
    return re.sub(r'^Error from server \(Forbidden\): (error when creating "STDIN": )?', "", line)


def volume(**source):
    return {"volumes": [{"name": "v", **source}]}


OTHER = {"name": "other"}
VARIABLE = {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "other", "key": "a"}}}]}
FIELDS = {
    "volumes.secret": volume(secret={"secretName": "other"}),
    "volumes.projected.sources.secret": volume(projected={"sources": [{"secret": OTHER}]}),
    "volumes.azureFile.secretName": volume(azureFile={"secretName": "other", "shareName": "s"}),
    "volumes.cephfs.secretRef": volume(cephfs={"monitors": ["m"], "secretRef": OTHER}),
    "volumes.cinder.secretRef": volume(cinder={"volumeID": "i", "secretRef": OTHER}),
    "volumes.csi.nodePublishSecretRef": volume(
        csi={"driver": "d.example.com", "nodePublishSecretRef": OTHER}
    ),
    "volumes.flexVolume.secretRef": volume(flexVolume={"driver": "d/e", "secretRef": OTHER}),
    "volumes.iscsi.secretRef": volume(
        iscsi={
            "targetPortal": "p",
            "iqn": "iqn.2001-04.com.example:s",
            "lun": 0,
            "secretRef": OTHER,
        }
    ),
    "volumes.rbd.secretRef": volume(rbd={"monitors": ["m"], "image": "i", "secretRef": OTHER}),
    "volumes.scaleIO.secretRef": volume(
        scaleIO={"gateway": "g", "system": "s", "volumeName": "v", "secretRef": OTHER}
    ),
    "volumes.storageos.secretRef": volume(storageos={"volumeName": "v", "secretRef": OTHER}),
    "containers.env.valueFrom.secretKeyRef": {"containers": VARIABLE},
    "containers.envFrom.secretRef": {"containers": {"envFrom": [{"secretRef": OTHER}]}},
    "initContainers.env.valueFrom.secretKeyRef": {"initContainers": VARIABLE},
    "initContainers.envFrom.secretRef": {"initContainers": {"envFrom": [{"secretRef": OTHER}]}},
    "imagePullSecrets": {"imagePullSecrets": [OTHER]},
}
"""Each field of a pod that names a Secret, in a pod that is valid otherwise."""
PLACES = {
    "volumes": "volume v uses a Secret that this Job must not use",
    "containers": "a variable of container containers uses a Secret that this Job must not use",
    "initContainers": (
        "a variable of container initcontainers uses a Secret that this Job must not use"
    ),
    "imagePullSecrets": "imagePullSecrets names the Secret other, which this Job must not use",
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_job_that_uses_another_secret_is_refused(attempt, field):
    place = PLACES[field.split(".")[0]]
    assert reason(attempt(*DRY, stdin=job(FIELDS[field]))) == denied(f"{place}: {ADVICE}")


@pytest.mark.parametrize("name", [NAME, "team", "registry"])
def test_a_job_may_use_its_own_secret_and_those_that_the_namespace_lists(attempt, name):
    for fields in FIELDS.values():
        assert (
            attempt(*DRY, stdin=json.loads(json.dumps(job(fields)).replace('"other"', f'"{name}"')))
            is None
        )


def test_the_list_of_fields_that_name_a_secret_is_that_of_the_api_server(admin):
    schemas = json.loads(admin("get", "--raw", "/openapi/v3/apis/batch/v1"))["components"][
        "schemas"
    ]

    def named(schema, path):
        schema = (
            schema
            if "properties" in schema or not (reference := _reference(schema))
            else schemas[reference]
        )
        for key, value in schema.get("properties", {}).items():
            here = (*path, key)
            if "secret" in key.lower() and key != "secretFile":  # a path on the node
                yield ".".join(here)
            elif len(here) < 8 and key != "ephemeralContainers":  # refused in the pod of a Job
                yield from named(value, here)

    assert sorted(named(schemas["io.k8s.api.core.v1.PodSpec"], ())) == sorted(FIELDS)


def _reference(schema):
    holder = schema.get("items", schema)
    reference = holder.get("$ref") or next((part["$ref"] for part in holder.get("allOf", ())), "")
    return reference.rpartition("/")[2]


def test_a_job_may_not_take_the_name_of_a_secret_to_use_it(attempt):
    message = (
        "A Job with the label app.kubernetes.io/managed-by=mlflow-compute needs the id of a run "
        "(32 hexadecimal digits) in the label mlflow-compute/run-id and a name that ends in its "
        "first 8 digits, a dash and 10 further digits: submit it with mlflow-compute, or remove "
        "the label"
    )
    fields = volume(secret={"secretName": "login"})
    assert reason(attempt(*DRY, stdin=job(fields, name="login"))) == denied(message, name="login")
    advice = ADVICE.replace(f"{NAME}, ", "")
    refusal = denied(f"volume v uses a Secret that this Job must not use: {advice}", name="login")
    assert reason(attempt(*DRY, stdin=job(fields, name="login", labels={}))) == refusal


@pytest.mark.parametrize("account", [None, "default", "trainer"])
def test_a_job_runs_as_the_default_service_account_or_a_listed_one(attempt, account):
    assert attempt(*DRY, stdin=job({"serviceAccountName": account} if account else {})) is None


@pytest.mark.parametrize("field", ["serviceAccountName", "serviceAccount"])
def test_a_job_may_not_run_as_another_service_account(attempt, field):
    message = (
        "the pod must not run as the service account mlflow-compute-controller: leave it out, or "
        "have an administrator add it to the annotation mlflow-compute/service-accounts of the "
        "namespace"
    )
    assert reason(attempt(*DRY, stdin=job({field: "mlflow-compute-controller"}))) == denied(message)


NOT_OURS = (
    "Only a Job with the label app.kubernetes.io/managed-by=mlflow-compute may have labels "
    "mlflow-compute/*: remove them from the Job and from its pod template"
)
DIFFERENT = (
    "The labels mlflow-compute/* and app.kubernetes.io/managed-by of the Job and of its pod "
    "template differ: set them alike, or leave 'labels' out of the target's pod_template"
)
SELECTS = (
    "A Job with the label app.kubernetes.io/managed-by=mlflow-compute selects its pods by their "
    "controller alone: leave out manualSelector"
)
PLAIN = {"app": "x"}


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        (job(labels={"mlflow-compute/run-id": RUN}), NOT_OURS),
        (job(labels=PLAIN, pod_labels=LABELS), NOT_OURS),
        (
            job(labels=PLAIN, pod_labels={"app.kubernetes.io/managed-by": "mlflow-compute"}),
            NOT_OURS,
        ),
        (job(labels={**LABELS, "app.kubernetes.io/managed-by": "Helm"}), NOT_OURS),
        (job(pod_labels=PLAIN), DIFFERENT),
        (job(pod_labels={**LABELS, "mlflow-compute/run-id": "f" * 32}), DIFFERENT),
        (job(pod_labels={**LABELS, "mlflow-compute/more": "x"}), DIFFERENT),
        (
            job(manualSelector=True, selector={"matchLabels": {"mlflow-compute/run-id": RUN}}),
            SELECTS,
        ),
    ],
)
def test_forged_labels_are_refused(attempt, forged, message):
    assert reason(attempt(*DRY, stdin=forged)) == denied(message)


@pytest.mark.parametrize(
    "name",
    ["demo", f"demo-{RUN[:8]}", f"demo-{RUN[:8]}-0a1b", f"demo-{'f' * 8}-0a1b2c3d4e", f"{NAME}-x"],
)
def test_a_name_that_does_not_fit_the_run_is_refused(attempt, name):
    assert reason(attempt(*DRY, stdin=job(name=name))).startswith(
        denied("A Job with the label", name=name)
    )


@pytest.mark.parametrize("run_id", ["", RUN[:-1], RUN.upper(), f"{RUN}0"])
def test_a_run_id_that_is_none_is_refused(attempt, run_id):
    assert reason(
        attempt(*DRY, stdin=job(labels={**LABELS, "mlflow-compute/run-id": run_id}))
    ).startswith(denied("A Job with the label"))


def test_other_jobs_go_on_as_before(attempt):
    assert (
        attempt(
            *DRY, stdin=job(name="theirs", labels={**PLAIN, "app.kubernetes.io/managed-by": "Helm"})
        )
        is None
    )


def test_a_pod_that_no_job_controls_may_not_carry_the_labels_of_a_run(attempt):
    message = (
        "A pod with labels mlflow-compute/* or app.kubernetes.io/managed-by=mlflow-compute must be "
        "controlled by a Job: submit the run with mlflow-compute, or remove the labels"
    )
    for labels in (
        LABELS,
        {"mlflow-compute/run-id": RUN},
        {"app.kubernetes.io/managed-by": "mlflow-compute"},
    ):
        assert reason(attempt(*DRY, stdin=pod(labels), user=())) == denied(
            message, "pods", "pods", "stray"
        )
    assert attempt(*DRY, stdin=pod(PLAIN), user=()) is None
    assert "cannot create resource" in attempt(*DRY, stdin=pod(PLAIN))


def test_a_job_that_exists_is_judged_when_its_labels_change_and_is_deleted_with_its_secret(
    attempt, admin
):
    admin("delete", "job", NAME, "--ignore-not-found")
    assert (
        attempt("create", "-f", "-", stdin=job(volume(secret={"secretName": "team"}), suspend=True))
        is None
    )
    admin("annotate", "--overwrite", "namespace", NAMESPACE, "mlflow-compute/secrets=registry")
    try:
        relabelled = json.dumps({"metadata": {"labels": {"mlflow-compute/user": "ada"}}})
        wait_for(
            lambda: attempt("patch", "job", NAME, "--dry-run=server", "-p", relabelled, user=())
        )
        assert attempt("annotate", "job", NAME, "note=x", user=()) is None
    finally:
        admin("annotate", "--overwrite", "namespace", NAMESPACE, SECRETS)
    message = (
        "The Job of a run is deleted together with its pods and its Secret: set propagationPolicy "
        "to Background or Foreground (kubectl delete --cascade=background)"
    )
    assert reason(attempt("delete", "job", NAME, "--cascade=orphan")) == denied(message, "deletion")
    uid = admin("get", "job", NAME, "-o", "jsonpath={.metadata.uid}")
    plain = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
    path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{NAME}"
    assert reason(attempt("delete", "--raw", path, "-f", "-", stdin=plain)) == denied(
        message, "deletion"
    ), "the API's default for Jobs"
    assert attempt("delete", "job", NAME) is None


@pytest.fixture
def submitter(cluster_access, cluster, guarded, monkeypatch):
    """The target is in the namespace, and the kubeconfig is that of a person in the group
    mlflow-users.
    """
    kubeconfig = Path(cluster_access.kubeconfig).with_name("submitter.kubeconfig")
    if not kubeconfig.exists():
        pytest.skip(
            "needs a user in the group mlflow-users: the cluster that is built here has one"
        )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    cluster(namespace=NAMESPACE)


def test_a_run_passes_the_policy_with_its_own_secret_with_a_listed_one_and_without(
    submitter, project, admin, monkeypatch
):
    admin("delete", "secret", "team", "--ignore-not-found")
    admin("create", "secret", "generic", "team", "--from-literal=MLFLOW_TRACKING_TOKEN=ours")
    root = project("echo token ${{MLFLOW_TRACKING_TOKEN:-none}}")
    target = {"COMPUTE": "dev-cluster"}
    assert Seen(run(root).run_id).log.startswith(b"token none\n")
    assert Seen(run(root, {**target, "secret": "team"}).run_id).log.startswith(b"token ours\n")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "mine")
    assert Seen(run(root).run_id).log.startswith(b"token mine\n")


def test_a_target_with_a_secret_that_is_not_listed_is_refused_before_there_is_a_run(
    submitter, project
):
    from mlflow.exceptions import ExecutionException
    from mlflow.tracking import MlflowClient

    before = MlflowClient().search_runs(["0"], max_results=1)
    with pytest.raises(
        ExecutionException,
        match="denied request: volume target-secrets uses a Secret that this "
        "Job must not use: use one of",
    ):
        run(project("true"), {"COMPUTE": "dev-cluster", "secret": "other"})
    assert [item.info.run_id for item in MlflowClient().search_runs(["0"], max_results=1)] == [
        item.info.run_id for item in before
    ]


def expanded(policy):
    """The policy with each variable written out where it is used: the API server checks types only
    there.
    """
    spec = policy["spec"]
    variables = {item["name"]: item["expression"] for item in spec.pop("variables", ())}

    def expand(expression):
        while "variables." in expression:
            expression = re.sub(
                r"variables\.(\w+)", lambda name: f"({variables[name[1]]})", expression
            )
        return expression

    validations = [
        {key: expand(text) for key, text in item.items() if key.endswith("xpression")}
        for item in spec["validations"]
    ]
    spec["validations"] = validations + [
        {"expression": item["expression"]} for item in spec.pop("matchConditions")
    ]
    policy["metadata"]["name"] += "-types"
    return policy


@pytest.mark.parametrize(
    "file", sorted((ROOT / "k8s/policy").glob("[!k]*.yaml")), ids=lambda path: path.stem
)
def test_the_api_server_checks_the_types_of_each_policy_without_a_warning(admin, file):
    policy = expanded(next(yaml.safe_load_all(file.read_text())))
    name = ("validatingadmissionpolicy", policy["metadata"]["name"])
    admin("delete", "--ignore-not-found", *name)
    admin("create", "-f", "-", stdin=policy)
    checked = lambda: json.loads(admin("get", *name, "-o", "json"))["status"].get("typeChecking")  # noqa: E731
    try:
        wait_for(lambda: checked() is not None)
        assert checked() == {}
    finally:
        admin("delete", *name)
