"""From a Submission and a Target to Kubernetes objects: plain values in, plain dicts out.

Pods pass the `restricted` Pod Security Standard
(https://kubernetes.io/docs/concepts/security/pod-security-standards/).
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlflow_backend.credentials import has_credential
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.places.kubernetes.objects.bundle import BUNDLE_DIR, SECRETS_DIR, Bundle
from mlflow_backend.places.kubernetes.objects.labels import PREFIX
from mlflow_backend.places.kubernetes.objects.merge import strategic_merge
from mlflow_backend.targets.target import Target
from mlflow_runner.contract.submission import Submission

CONTAINER = "run"
TARGET_SECRETS_DIR = "/mlflow/target-secrets"
WORK_DIR = "/mlflow/work"
PROJECT_DIR = f"{WORK_DIR}/unpacked/project"
INPUTS_DIR = f"{WORK_DIR}/unpacked/inputs"
LOCK_DIR = f"{WORK_DIR}/unpacked/environment"
CACHE_DIR = "/mlflow/cache"
TERMINATION_LOG = "/dev/termination-log"
REPORT_S = 5
"""Of the pod's grace period, the seconds kept for the runner to report the end."""
LEAST_LIFETIME_S = 1.2
"""The kubelet lists containers once a second. One that it never saw running is shown two seconds
later than it ended, its log not before that: a runner stays as long as it takes to be seen.
"""
USER_ID = 1000
UNKNOWN_UID = "00000000-0000-0000-0000-000000000000"
"""Stands for the uid of a Job that the API server judges without creating it."""
UNIQUE_BYTES = 5
"""Random bytes at the end of a Job's name: others cannot guess it before the Job exists."""
FROM_POD = {
    "MLFLOW_COMPUTE_NODE": "spec.nodeName",
    "MLFLOW_COMPUTE_POD": "metadata.name",
    "MLFLOW_COMPUTE_JOB_UID": "metadata.labels['batch.kubernetes.io/controller-uid']",
}
FAILURES = "metadata.annotations['batch.kubernetes.io/job-index-failure-count']"


@dataclass(frozen=True)
class Identity:
    """Who and what a Job is for, beyond its Submission: shown in labels and annotations."""

    name: str
    project: str
    user: str
    client: str
    target: str
    run_url: str | None = None
    source: str | None = None


def job_name(project: str, run_id: str, unique: str) -> str:
    """A Job's name with the project, the run and `unique` (hex): a DNS label of at most 63
    characters.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", project.lower()).strip("-")[:40].strip("-") or "project"
    return f"{slug}-{run_id[:8]}-{unique}"


def config_map(job: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """The immutable ConfigMap of the bundle, named as the created Job `job`, owned by it and so
    deleted with it.
    """
    return _owned("ConfigMap", job, "binaryData", bundle.public)


def secret(job: Mapping[str, Any], bundle: Bundle) -> dict[str, Any] | None:
    """The immutable Secret of the bundle likewise; None when it has no credential."""
    return _owned("Secret", job, "data", bundle.secret) if bundle.secret else None


def _owned(
    kind: str, job: Mapping[str, Any], field: str, files: Mapping[str, bytes]
) -> dict[str, Any]:
    name, uid = job["metadata"]["name"], job["metadata"].get("uid", UNKNOWN_UID)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "labels": _managed(), "ownerReferences": [owner]},
        "immutable": True,
        field: {key: base64.b64encode(value).decode() for key, value in files.items()},
    }


def job(
    submission: Submission,
    target: Target,
    identity: Identity,
    bundle: Bundle,
    variables: Mapping[str, str],
) -> dict[str, Any]:
    """The Job of one run.

    `variables` are MLflow settings without credentials; the target's `env` overrides them.
    """
    own_labels, annotations = (
        _labels(submission, target, identity),
        _notes(submission, target, identity),
    )
    template = {
        "metadata": {"labels": dict(own_labels), "annotations": dict(annotations)},
        "spec": _pod(submission, target, identity, bundle, variables),
    }
    spec = {
        **_attempts(target),
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": target.keep_finished,
        "template": strategic_merge(template, target.pod_template),
    }
    if target.deadline:
        spec["activeDeadlineSeconds"] = target.deadline
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": identity.name, "labels": own_labels, "annotations": annotations},
        "spec": spec,
    }


def _labels(submission: Submission, target: Target, identity: Identity) -> dict[str, str]:
    own_labels = {
        **_managed(),
        labels.RUN: submission.run_id,
        labels.CLIENT: identity.client,
        labels.EXPERIMENT: submission.experiment_id,
        f"{PREFIX}/project": _label(identity.project),
        f"{PREFIX}/user": _label(identity.user),
        f"{PREFIX}/target": _label(identity.target),
    }
    if target.queue:
        own_labels["kueue.x-k8s.io/queue-name"] = target.queue
    return own_labels


def _notes(submission: Submission, target: Target, identity: Identity) -> dict[str, str]:
    annotations = {
        f"{PREFIX}/run-url": identity.run_url,
        f"{PREFIX}/source": identity.source,
        f"{PREFIX}/snapshot": submission.archive.sha256 if submission.archive else None,
        labels.MARK: submission.mark,
        labels.TOPOLOGY: str(submission.topology) if submission.topology.size > 1 else None,
        labels.START_TIMEOUT: str(target.start_timeout) if target.start_timeout else None,
        "kubectl.kubernetes.io/default-container": CONTAINER,
    }
    return {key: value for key, value in annotations.items() if value}


def _attempts(target: Target) -> dict[str, Any]:
    """How many pods may follow each other, and after what. The rules leave in the Job why it
    failed, for when its pod is gone.

    One index that is retried (KEP-3850), because its pods are told how many came before them.
    """
    disrupted = {"onPodConditions": [{"type": "DisruptionTarget"}]}
    exits = {
        "containerName": CONTAINER,
        "operator": "NotIn",
        "values": sorted({0, *target.retry_on}),
    }
    fails = {"action": "FailJob", "onExitCodes": exits}
    if not target.retries:
        return {
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [{"action": "FailJob", **disrupted}, fails]},
        }
    rules: list[dict[str, Any]] = [{"action": "Count", **disrupted}]
    if target.retry_on:
        again = {
            "containerName": CONTAINER,
            "operator": "In",
            "values": sorted(set(target.retry_on)),
        }
        rules.append({"action": "Count", "onExitCodes": again})
    return {
        "completionMode": "Indexed",
        "completions": 1,
        "parallelism": 1,
        "backoffLimitPerIndex": target.retries,
        "podFailurePolicy": {"rules": [*rules, fails]},
    }


def grace_period_s(target: Target) -> float:
    """How long the command has to end after a SIGTERM, in seconds."""
    return float(target.grace_period - REPORT_S)


def cache_limit_bytes(target: Target) -> int | None:
    """How large the cache may become before the least recently used environments are removed; None:
    it dies with its pod.
    """
    from kubernetes.utils.quantity import parse_quantity

    limit = target.cache.size_limit
    return int(parse_quantity(str(limit))) if target.cache.is_kept and limit is not None else None


def on_host_network(target: Target) -> bool:
    """Whether a pod of this target sees the node's own loopback addresses."""
    return bool((target.pod_template.get("spec") or {}).get("hostNetwork"))


def _pod(
    submission: Submission,
    target: Target,
    identity: Identity,
    bundle: Bundle,
    variables: Mapping[str, str],
) -> dict[str, Any]:
    volumes = _volumes(submission, target, identity, bundle)
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": target.grace_period,
        "automountServiceAccountToken": target.tracking_auth == "kubernetes",
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(target, bundle, volumes, _env(submission, target, variables))],
        "volumes": [{"name": volume.name, **volume.source} for volume in volumes],
    }
    optional = {
        "serviceAccountName": target.service_account,
        "nodeSelector": dict(target.node_selector),
        "tolerations": [dict(item) for item in target.tolerations],
        "imagePullSecrets": [{"name": name} for name in target.image_pull_secrets],
    }
    return pod | {key: value for key, value in optional.items() if value}


class _Volume(NamedTuple):
    """A volume of the pod, and how the container mounts it."""

    name: str
    path: str
    source: Mapping[str, Any]
    mount: Mapping[str, Any]


def _volumes(
    submission: Submission, target: Target, identity: Identity, bundle: Bundle
) -> list[_Volume]:
    read_only = {"readOnly": True}
    volumes = [
        _Volume("bundle", BUNDLE_DIR, {"configMap": {"name": identity.name}}, read_only),
        _Volume("work", WORK_DIR, {"emptyDir": {}}, {}),
        _Volume("tmp", "/tmp", {"emptyDir": {}}, {}),  # noqa: S108  # a volume of the pod
    ]
    if submission.environment:
        user = _label(identity.user) or USER_ID
        own = {"subPath": f"users/{user}"} if target.cache.per_user else {}
        volumes.append(_Volume("cache", CACHE_DIR, _cache_volume(target), own))
    for name, path, secret_name in (
        ("secrets", SECRETS_DIR, identity.name if bundle.secret else None),
        ("target-secrets", TARGET_SECRETS_DIR, target.secret),
    ):
        if secret_name:
            source = {"secret": {"secretName": secret_name, "defaultMode": 0o440}}
            volumes.append(_Volume(name, path, source, read_only))
    return volumes


def _env(
    submission: Submission, target: Target, variables: Mapping[str, str]
) -> list[dict[str, Any]]:
    uri = submission.tracking_uri
    values = {
        **({} if has_credential(uri) else {"MLFLOW_TRACKING_URI": literal(uri)}),
        "MLFLOW_RUN_ID": submission.run_id,
        "MLFLOW_EXPERIMENT_ID": submission.experiment_id,
        **{name: literal(value) for name, value in variables.items()},
        **({"MLFLOW_TRACKING_AUTH": target.tracking_auth} if target.tracking_auth else {}),
        "HOME": WORK_DIR,
        "USER": "mlflow",
        "LOGNAME": "mlflow",
        "MLFLOW_COMPUTE_IMAGE": target.image,
        **{key: _text(value) for key, value in target.env.items()},
    }
    fields = {**FROM_POD, **({"MLFLOW_COMPUTE_FAILURES": FAILURES} if target.retries else {})}
    return [{"name": name, "value": value} for name, value in values.items()] + [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in fields.items()
    ]


def _container(
    target: Target, bundle: Bundle, volumes: Sequence[_Volume], env: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    container = {
        "name": CONTAINER,
        "image": target.image,
        "command": bundle.command,
        "env": env,
        "volumeMounts": [
            {"name": volume.name, "mountPath": volume.path, **volume.mount} for volume in volumes
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if target.image_pull_policy:
        container["imagePullPolicy"] = target.image_pull_policy
    amounts = _resources(target)
    if amounts:
        container["resources"] = {"requests": amounts, "limits": dict(amounts)}
    return container


def literal(text: str) -> str:
    """`text` as the value of a variable that a container gets unchanged: Kubernetes expands
    `$(NAME)`, and takes `$$` for `$`.
    """
    return text.replace("$", "$$")


def _cache_volume(target: Target) -> dict[str, Any]:
    cache = target.cache
    if cache.claim:
        return {"persistentVolumeClaim": {"claimName": cache.claim}}
    if cache.host_path:
        return {"hostPath": {"path": cache.host_path, "type": "DirectoryOrCreate"}}
    return {"emptyDir": {"sizeLimit": str(cache.size_limit)} if cache.size_limit else {}}


def _resources(target: Target) -> dict[str, str]:
    wanted = target.resources
    amounts = {
        "cpu": wanted.cpu,
        "memory": wanted.memory,
        "ephemeral-storage": wanted.ephemeral_storage,
        target.gpu_resource: wanted.gpu or None,
        **wanted.__pydantic_extra__,
    }
    return {name: str(value) for name, value in amounts.items() if value is not None}


def _managed() -> dict[str, str]:
    return {labels.MANAGED_BY: PREFIX}


def _label(text: str) -> str:
    """`text` as a label's value: what Kubernetes does not allow becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-._")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
