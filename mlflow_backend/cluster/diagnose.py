"""Why a run cannot start or did not end by itself: Job, Pod and events in, a Diagnosis out. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_runner.submission import STOPPED_BY_CLUSTER

CANNOT_START = {
    # reason of a waiting container: (cause, seconds before it counts as final, hint)
    "InvalidImageName": ("InvalidImageName", 0, "correct 'image' in the target"),
    "ErrImageNeverPull": ("ImagePullError", 0, "load the image on the node, or change 'image_pull_policy' in the target"),
    "ErrImagePull": ("ImagePullError", 120, "correct 'image' or 'image_pull_secrets' in the target"),
    "ImagePullBackOff": ("ImagePullError", 120, "correct 'image' or 'image_pull_secrets' in the target"),
    "CreateContainerConfigError": ("CreateContainerConfigError", 30, "correct the target's 'secret' or 'pod_template'"),
    "CreateContainerError": ("CreateContainerConfigError", 30, "correct the target's 'pod_template'"),
}
"""Image errors wait: a registry that is slow or limits its rate for a moment is no failure."""


@dataclass(frozen=True)
class Diagnosis:
    """A run's end as the cluster shows it. `cause` is a stable word, `message` a sentence with what to do."""

    status: str
    cause: str | None
    message: str
    exit_code: int | None = None


def ended(job: Mapping[str, Any] | None, pod: Mapping[str, Any] | None) -> Diagnosis | None:
    """How the run of this Job has ended, or None while it may still run. A Job that is gone is None.

    A pod that was stopped from outside is no end: its Job, which comes to know of it
    later, makes another one or says why not.
    """
    if job is None and pod is not None and _phase(pod) not in ("Succeeded", "Failed"):
        return None  # being deleted too: its runner may still tell the end
    if job is None:
        return Diagnosis("KILLED", "Deleted", "The Job was deleted: submit the run again if that was not meant.")
    failed = _condition(job, "Failed") or _condition(job, "FailureTarget")
    if pod is None or _condition(job, "Failed") and _phase(pod) not in ("Succeeded", "Failed"):
        return _of_job(failed) if failed else None
    if _phase(pod) not in ("Succeeded", "Failed"):
        return None
    return _of_pod(pod, failed) if failed or not _stopped_from_outside(pod) else None


def cannot_start(pod: Mapping[str, Any]) -> tuple[Diagnosis, float] | None:
    """Why the pod's container does not start, and the seconds to wait before that is final."""
    waiting = _container(pod).get("state", {}).get("waiting", {})
    known = CANNOT_START.get(waiting.get("reason"))
    if known is None:
        return None
    cause, grace_s, hint = known
    detail = waiting.get("message") or waiting["reason"]
    return Diagnosis("FAILED", cause, f"{detail}: {hint}."), grace_s


def waiting_for(pod: Mapping[str, Any] | None, job: Mapping[str, Any] | None, events: Sequence[Mapping[str, Any]]) -> str:
    """What a run that does not run yet is waiting for, in a few words."""
    if pod is None:
        if job and job.get("spec", {}).get("suspend"):
            return "waiting in the queue"
        refused = [event["message"] for event in events if event.get("reason") == "FailedCreate"]
        return f"waiting: {refused[-1]}" if refused else "waiting for a pod"
    scheduled = _pod_condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"waiting for a node: {scheduled.get('message', 'unschedulable')}"
    waiting = _container(pod).get("state", {}).get("waiting", {})
    if waiting.get("reason") in CANNOT_START:
        return f"waiting: {waiting.get('message') or waiting['reason']}"
    if any(event.get("reason") == "FailedMount" for event in events[-1:]):
        return f"waiting: {events[-1]['message']}"
    reasons = [event.get("reason") for event in events]
    if "Pulling" in reasons and "Pulled" not in reasons:
        return f"pulling image {pod['spec']['containers'][0]['image']}"
    return "starting the container"


def _stopped_from_outside(pod) -> bool:
    told = _told_by_runner(_container(pod).get("state", {}).get("terminated", {}).get("message"))
    disrupted = _pod_condition(pod, "DisruptionTarget").get("status") == "True"
    return disrupted or (told is not None and told.cause == STOPPED_BY_CLUSTER)


def _of_pod(pod, failed) -> Diagnosis:
    status = pod.get("status", {})
    terminated = _container(pod).get("state", {}).get("terminated", {})
    code = terminated.get("exitCode")
    told = _told_by_runner(terminated.get("message"))
    if failed and failed.get("reason") == "DeadlineExceeded":
        return _of_job(failed, code)
    if status.get("reason") == "Evicted":
        return Diagnosis(
            "FAILED",
            "Evicted",
            f"{status.get('message', 'The node was short of a resource')} Ask for what the run needs in 'resources'.",
            code,
        )
    if told:
        return told
    if terminated.get("reason") == "OOMKilled":
        return Diagnosis(
            "FAILED", "OOMKilled", "The container needed more memory than its limit: raise 'resources.memory' in the target.", code
        )
    if terminated.get("reason") in ("StartError", "ContainerCannotRun"):
        return Diagnosis(
            "FAILED",
            "EnvironmentError",
            f"The container could not start: {terminated.get('message', '')}: the image needs a python3.",
            code,
        )
    if _phase(pod) == "Succeeded":
        return Diagnosis("FINISHED", None, "", 0)
    if code == 137:
        return Diagnosis("FAILED", "Killed", "The container was killed from outside (SIGKILL): see the node's events.", code)
    if code is not None:
        return Diagnosis("FAILED", "ExitCode", f"The runner exited with code {code}: see the log.", code)
    return Diagnosis("FAILED", "Unknown", f"The pod failed: {status.get('message') or status.get('reason') or 'no reason given'}.")


def _of_job(condition, code=None) -> Diagnosis:
    if condition.get("reason") == "DeadlineExceeded":
        return Diagnosis(
            "FAILED", "DeadlineExceeded", "The run was longer than the target's 'deadline': raise it or make the run shorter.", code
        )
    return Diagnosis("FAILED", "Unknown", f"The Job failed: {condition.get('message') or condition.get('reason')}.", code)


def _told_by_runner(text) -> Diagnosis | None:
    """The runner leaves the end in the termination message, in case MLflow could not be told."""
    try:
        told = json.loads(text)
        return Diagnosis(told["status"], told["cause"], told["message"] or "", told["exit_code"])
    except (TypeError, ValueError, KeyError):
        return None


def _phase(pod):
    return pod.get("status", {}).get("phase")


def _container(pod) -> Mapping[str, Any]:
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return next((status for status in statuses if status.get("name") == "run"), statuses[0])


def _condition(job, kind):
    conditions = job.get("status", {}).get("conditions") or []
    return next((item for item in conditions if item["type"] == kind and item["status"] == "True"), None)


def _pod_condition(pod, kind) -> Mapping[str, Any]:
    conditions = pod.get("status", {}).get("conditions") or []
    return next((item for item in conditions if item["type"] == kind), {})
