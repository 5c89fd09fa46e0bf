"""The Kubernetes objects of a run: plain values in, the whole expected dict out."""

import base64
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.places.kubernetes.objects import bundle, manifest
from mlflow_backend.targets.target import Target
from mlflow_runner.contract.submission import Archive, Environment, Submission

SUBMISSION = Submission(
    run_id="r" * 32,
    experiment_id="7",
    tracking_uri="http://mlflow:5000",
    command="python train.py",
    project_dir=manifest.PROJECT_DIR,
    scratch_dir="/mlflow/work/runner",
    cache_dir="/mlflow/work/cache",
    archive=Archive("ab" * 32, "/mlflow/bundle/snapshot.tar.gz"),
    mark="m1",
)
BUNDLE = bundle.make(b"runner", SUBMISSION, b"code", {}, False, b"nonce", manifest.WORK_DIR)
WITH_SECRET = bundle.make(
    b"runner",
    SUBMISSION,
    b"code",
    {"MLFLOW_TRACKING_TOKEN": b"t"},
    False,
    b"nonce",
    manifest.WORK_DIR,
)
IDENTITY = manifest.Identity(
    "wine-rrrrrrrr-1",
    "wine",
    "ada@example.com",
    "c1",
    "cpu",
    "http://mlflow:5000/#/x",
    "/home/ada/wine",
)
LABELS = {
    "app.kubernetes.io/managed-by": "mlflow-compute",
    "mlflow-compute/run-id": "r" * 32,
    "mlflow-compute/client": "c1",
    "mlflow-compute/experiment-id": "7",
    "mlflow-compute/project": "wine",
    "mlflow-compute/user": "ada-example.com",
    "mlflow-compute/target": "cpu",
}
ANNOTATIONS = {
    "mlflow-compute/run-url": "http://mlflow:5000/#/x",
    "mlflow-compute/source": "/home/ada/wine",
    "mlflow-compute/snapshot": "ab" * 32,
    "mlflow-compute/mark": "m1",
    "kubectl.kubernetes.io/default-container": "run",
}


def job(made=BUNDLE, variables=None, **fields):
    return manifest.job(
        SUBMISSION, Target(image="runner:1", **fields), IDENTITY, made, variables or {}
    )


def pod_of(made):
    return made["spec"]["template"]["spec"]


def test_the_job_of_a_plain_target():
    assert job(variables={"MLFLOW_HTTP_REQUEST_TIMEOUT": "9"}) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "wine-rrrrrrrr-1", "labels": LABELS, "annotations": ANNOTATIONS},
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "run", "operator": "NotIn", "values": [0]},
                    },
                ]
            },
            "ttlSecondsAfterFinished": 86400,
            "template": {
                "metadata": {"labels": LABELS, "annotations": ANNOTATIONS},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 30,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1000,
                        "runAsGroup": 1000,
                        "fsGroup": 1000,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "run",
                            "image": "runner:1",
                            "command": BUNDLE.command,
                            "env": [
                                {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"},
                                {"name": "MLFLOW_RUN_ID", "value": "r" * 32},
                                {"name": "MLFLOW_EXPERIMENT_ID", "value": "7"},
                                {"name": "MLFLOW_HTTP_REQUEST_TIMEOUT", "value": "9"},
                                {"name": "HOME", "value": "/mlflow/work"},
                                {"name": "USER", "value": "mlflow"},
                                {"name": "LOGNAME", "value": "mlflow"},
                                {"name": "MLFLOW_COMPUTE_IMAGE", "value": "runner:1"},
                                {
                                    "name": "MLFLOW_COMPUTE_NODE",
                                    "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}},
                                },
                                {
                                    "name": "MLFLOW_COMPUTE_POD",
                                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
                                },
                                {
                                    "name": "MLFLOW_COMPUTE_JOB_UID",
                                    "valueFrom": {
                                        "fieldRef": {
                                            "fieldPath": "metadata.labels['batch.kubernetes.io/controller-uid']"
                                        }
                                    },
                                },
                            ],
                            "volumeMounts": [
                                {"name": "bundle", "mountPath": "/mlflow/bundle", "readOnly": True},
                                {"name": "work", "mountPath": "/mlflow/work"},
                                {"name": "tmp", "mountPath": "/tmp"},
                            ],
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                    "volumes": [
                        {"name": "bundle", "configMap": {"name": "wine-rrrrrrrr-1"}},
                        {"name": "work", "emptyDir": {}},
                        {"name": "tmp", "emptyDir": {}},
                    ],
                },
            },
        },
    }


def test_a_variable_reaches_the_runner_unchanged_although_kubernetes_expands_variables():
    made = job(variables={"MLFLOW_X": "$(HOME) $$"})
    values = {item["name"]: item.get("value", "") for item in pod_of(made)["containers"][0]["env"]}
    assert values["MLFLOW_X"] == "$$(HOME) $$$$"


def test_a_command_holds_nothing_that_kubernetes_expands():
    assert not any("$" in word for word in BUNDLE.command)


def test_retries_follow_a_disruption_or_a_code_that_the_target_names_and_the_pod_is_told_how_many():
    spec = job(retries=3, retry_on=(75, 42))["spec"]
    assert (
        spec["backoffLimitPerIndex"],
        spec["completions"],
        spec["parallelism"],
        spec["completionMode"],
    ) == (3, 1, 1, "Indexed")
    assert "backoffLimit" not in spec
    assert spec["podFailurePolicy"]["rules"] == [
        {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {
            "action": "Count",
            "onExitCodes": {"containerName": "run", "operator": "In", "values": [42, 75]},
        },
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "run", "operator": "NotIn", "values": [0, 42, 75]},
        },
    ]
    told = [
        item
        for item in spec["template"]["spec"]["containers"][0]["env"]
        if item["name"] == "MLFLOW_COMPUTE_FAILURES"
    ]
    assert "job-index-failure-count" in told[0]["valueFrom"]["fieldRef"]["fieldPath"]


def test_resources_are_requests_and_limits_alike():
    made = job(
        resources={
            "cpu": 2,
            "memory": "4Gi",
            "ephemeral_storage": "1Gi",
            "gpu": 1,
            "example.com/nic": 2,
        }
    )
    amounts = {
        "cpu": "2",
        "memory": "4Gi",
        "ephemeral-storage": "1Gi",
        "nvidia.com/gpu": "1",
        "example.com/nic": "2",
    }
    assert pod_of(made)["containers"][0]["resources"] == {"requests": amounts, "limits": amounts}
    made = job(resources={"gpu": 2}, gpu_resource="amd.com/gpu")
    assert pod_of(made)["containers"][0]["resources"]["limits"] == {"amd.com/gpu": "2"}


def test_every_other_field_of_a_target_has_its_place():
    made = job(
        node_selector={"disk": "ssd"},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
        image_pull_secrets=["registry"],
        image_pull_policy="Always",
        service_account="trainer",
        queue="team-a",
        deadline=60,
        grace_period=45,
        keep_finished=10,
        tracking_auth="kubernetes",
        env={"DEBUG": True, "LEVEL": 3},
    )
    pod = pod_of(made)
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["serviceAccountName"] == "trainer"
    assert pod["terminationGracePeriodSeconds"] == 45
    assert pod["automountServiceAccountToken"] is True
    assert pod["containers"][0]["imagePullPolicy"] == "Always"
    env = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert (env["DEBUG"], env["LEVEL"], env["MLFLOW_TRACKING_AUTH"]) == ("true", "3", "kubernetes")
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert (made["spec"]["activeDeadlineSeconds"], made["spec"]["ttlSecondsAfterFinished"]) == (
        60,
        10,
    )


@pytest.mark.parametrize(
    ("cache", "volume"),
    [
        ({}, {"emptyDir": {}}),
        ({"size_limit": "5Gi"}, {"emptyDir": {"sizeLimit": "5Gi"}}),
        ({"claim": "mine", "size_limit": "5Gi"}, {"persistentVolumeClaim": {"claimName": "mine"}}),
        (
            {"host_path": "/var/cache/x"},
            {"hostPath": {"path": "/var/cache/x", "type": "DirectoryOrCreate"}},
        ),
    ],
)
def test_a_cache_is_mounted_where_there_is_an_environment_to_keep(cache, volume):
    target = Target(image="runner:1", cache=cache)
    submission = SUBMISSION._replace(
        environment=Environment("k", "linux-64", "3.11", manifest.LOCK_DIR)
    )
    pod = pod_of(manifest.job(submission, target, IDENTITY, BUNDLE, {}))
    assert {"name": "cache", **volume} in pod["volumes"]
    assert {"name": "cache", "mountPath": "/mlflow/cache"} in pod["containers"][0]["volumeMounts"]
    assert "cache" not in [item["name"] for item in pod_of(job(cache=cache))["volumes"]]


def test_a_cache_per_user_is_a_folder_of_the_volume():
    target = Target(image="runner:1", cache={"claim": "mine", "per_user": True})
    submission = SUBMISSION._replace(
        environment=Environment("k", "linux-64", "3.11", manifest.LOCK_DIR)
    )
    found = []
    for user in ("ada", "Åda/..", "../.."):
        pod = pod_of(
            manifest.job(submission, target, dataclasses.replace(IDENTITY, user=user), BUNDLE, {})
        )
        found += [
            mount["subPath"]
            for mount in pod["containers"][0]["volumeMounts"]
            if mount["name"] == "cache"
        ]
    assert found == ["users/ada", "users/da", "users/1000"]
    with pytest.raises(ValueError, match="remove it, as each pod has its own cache"):
        Target(cache={"per_user": True})


def test_a_cache_that_dies_with_its_pod_is_not_cleaned():
    limit = lambda **cache: manifest.cache_limit_bytes(Target(cache=cache))  # noqa: E731
    assert limit(claim="mine", size_limit="1Gi") == 2**30
    assert limit(claim="mine") is limit(size_limit="1Gi") is None


def test_a_secret_is_mounted_as_files_and_owned_by_the_job():
    made = job(WITH_SECRET)
    assert {
        "name": "secrets",
        "secret": {"secretName": IDENTITY.name, "defaultMode": 0o440},
    } in pod_of(made)["volumes"]
    assert {"name": "secrets", "mountPath": "/mlflow/secrets", "readOnly": True} in pod_of(made)[
        "containers"
    ][0]["volumeMounts"]
    secret = manifest.secret({"metadata": {"name": "own", "uid": "u1"}}, WITH_SECRET)
    assert secret["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "own", "uid": "u1"}
    ]
    assert base64.b64decode(secret["data"]["MLFLOW_TRACKING_TOKEN"]) == b"t"
    assert secret["immutable"] is True
    assert manifest.secret({"metadata": {"name": "own", "uid": "u1"}}, BUNDLE) is None


def test_a_secret_that_the_target_names_is_mounted_apart_from_the_run_s_own():
    pod = pod_of(job(WITH_SECRET, secret="team"))
    assert {
        "name": "target-secrets",
        "secret": {"secretName": "team", "defaultMode": 0o440},
    } in pod["volumes"]
    assert {
        "name": "target-secrets",
        "mountPath": "/mlflow/target-secrets",
        "readOnly": True,
    } in pod["containers"][0]["volumeMounts"]


def test_a_pod_template_is_merged_onto_the_pod():
    template = {
        "metadata": {"annotations": {"a": "b"}},
        "spec": {"hostNetwork": True, "containers": [{"name": "run", "tty": True}]},
    }
    made = job(pod_template=template)
    assert made["spec"]["template"]["metadata"]["annotations"]["a"] == "b"
    assert pod_of(made)["hostNetwork"] is True
    assert (
        pod_of(made)["containers"][0]["tty"] is True
        and pod_of(made)["containers"][0]["image"] == "runner:1"
    )
    assert manifest.on_host_network(Target(pod_template=template)) and not manifest.on_host_network(
        Target()
    )


def test_the_config_map_is_owned_by_the_job_and_cannot_be_changed():
    made = manifest.config_map({"metadata": {"name": "wine-1", "uid": "u1"}}, BUNDLE)
    assert made["metadata"] == {
        "name": "wine-1",
        "labels": {"app.kubernetes.io/managed-by": "mlflow-compute"},
        "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "wine-1", "uid": "u1"}
        ],
    }
    assert made["immutable"] is True
    assert {key: base64.b64decode(value) for key, value in made["binaryData"].items()} == {
        "runner.pyz": b"runner",
        "snapshot.tar.gz": b"code",
        "run.json": SUBMISSION.to_json().encode(),
    }


@given(project=st.text(max_size=80), run_id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True))
def test_a_job_s_name_is_a_dns_label_whatever_the_project_is_called(project, run_id):
    import re

    assert re.fullmatch(
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", manifest.job_name(project, run_id, "1a2b")
    )


@given(st.text(max_size=100))
def test_every_label_is_one_that_kubernetes_allows(text):
    import re

    made = manifest.job(
        SUBMISSION, Target(image="i"), manifest.Identity("n", text, text, "c", text), BUNDLE, {}
    )
    for value in made["metadata"]["labels"].values():
        assert (
            re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", value) and len(value) <= 63
        )
    assert json.loads(json.dumps(made)) == made


def test_a_login_in_the_tracking_uri_of_a_database_is_not_in_the_job():
    submission = SUBMISSION._replace(tracking_uri="postgresql://ada:s3cr3t@host/mlflow")
    made = manifest.job(submission, Target(image="runner:1"), IDENTITY, BUNDLE, {})
    assert "s3cr3t" not in json.dumps(made)
