"""Why a run cannot start or did not end by itself: Job, Pod and events in, a Diagnosis out. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mlflow_backend.cluster.room import short_of
from mlflow_runner.causes import Cause
from mlflow_runner.ending import TERMINAL

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Diagnosis:
    """A run's end as the cluster shows it: what happened in a few words, the cluster's own words, and what to do."""

    status: str
    cause: Cause | None
    summary: str
    detail: str = ""
    hint: str = ""
    exit_code: int | None = None

    @property
    def message(self) -> str:
        """All of it as one line, for the tag `compute.message`."""
        what = f"{self.summary.rstrip('.')}: {_line(self.detail)}" if self.detail else self.summary
        return f"{what.rstrip('.')}. {self.hint[:1].upper()}{self.hint[1:].rstrip('.')}." if self.hint else f"{what.rstrip('.')}."


@dataclass(frozen=True)
class Trouble:
    """Why a run does not start. It fails when that lasts longer than `patience_s` seconds; None: it may wait for ever."""

    diagnosis: Diagnosis
    patience_s: float | None


LEFT_BEHIND = {
    "Preempted": (Cause.PREEMPTED, "A pod of higher priority took the place"),
    "Evicted": (Cause.EVICTED, "The pod was evicted"),
    "TaintManagerEviction": (Cause.NODE_LOST, "The node was lost"),
}
"""Events of a pod that outlive it, for about an hour."""
STOPPED = Diagnosis("KILLED", Cause.DELETED, "The pod was stopped from outside, as by kubectl delete pod")
CANNOT_START = {
    # reason of a waiting container: (cause, seconds before it counts as final, hint)
    "InvalidImageName": (Cause.INVALID_IMAGE_NAME, 0, "correct 'image' in the target"),
    "ErrImageNeverPull": (Cause.IMAGE_PULL_ERROR, 0, "load the image on the node, or change 'image_pull_policy' in the target"),
    "ErrImagePull": (Cause.IMAGE_PULL_ERROR, 120, "correct 'image' or 'image_pull_secrets' in the target"),
    "ImagePullBackOff": (Cause.IMAGE_PULL_ERROR, 120, "correct 'image' or 'image_pull_secrets' in the target"),
    "CreateContainerConfigError": (Cause.CREATE_CONTAINER_CONFIG_ERROR, 30, "correct the target's 'secret' or 'pod_template'"),
    "CreateContainerError": (Cause.CREATE_CONTAINER_CONFIG_ERROR, 30, "correct the target's 'pod_template'"),
}
"""Image errors wait: a registry that is slow or limits its rate for a moment is no failure."""
VOLUME_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
VOLUME_PATIENCE_S = 300
LOST_PATIENCE_S = 30
"""For how long beyond its grace period a pod may go on terminating before its node counts as lost."""
AGAIN = "submit it again, or set 'retries' in the target to have it go on by itself"
REFUSED_PATIENCE_S = 30
"""A Job's controller tries to make the pod again, less and less often; a webhook may have been away for a moment."""
ITS_WORDS = "change the target to what its words ask for"
REFUSED_BY = {
    "violates PodSecurity": ("The namespace's Pod Security Standard refuses the pod", "correct the target's 'pod_template' or 'cache'"),
    "admission webhook": ("An admission webhook refuses the pod", ITS_WORDS),
    "ValidatingAdmissionPolicy": ("An admission policy refuses the pod", ITS_WORDS),
}
"""Summary and hint by what the API server's message holds."""


def ended(job: Object | None, pod: Object | None, events: Sequence[Object] = ()) -> Diagnosis | None:
    """How the run of this Job has ended, or None while it may still run. A Job that is gone is None, one not seen yet is empty.

    A pod that was stopped from outside, or failed in a Job that may retry, is no end:
    its Job, which comes to know of it later, makes another one or says why not. `events`
    are those of a pod that is gone.
    """
    if job is None and pod is not None and _phase(pod) not in ("Succeeded", "Failed"):
        return None  # being deleted too: its runner may still tell the end
    if job is None and pod is not None and (told := _told_by_runner(pod)) and told.cause != Cause.TERMINATED:
        return told
    if job is None:
        return Diagnosis("KILLED", Cause.DELETED, "The Job was deleted", hint="submit the run again if that was not meant")
    failed = _condition(job, "Failed") or _condition(job, "FailureTarget")
    if pod is None or _condition(job, "Failed") and _phase(pod) not in ("Succeeded", "Failed"):
        return _of_job(failed, None, events) if failed else None
    if _phase(pod) not in ("Succeeded", "Failed"):
        return None
    goes_on = _phase(pod) == "Failed" and (not job or may_retry(job) or _stopped_from_outside(pod))
    return _of_pod(pod, failed) if failed or not goes_on else None


def overdue(job: Object | None, pod: Object | None, now_s: float) -> Trouble | None:
    """A pod that is being deleted and should be gone: its node does not answer. `now_s` is the cluster's time.

    Its container may run on there; nobody can tell. The patience is what is left of it.
    """
    due = pod and pod["metadata"].get("deletionTimestamp")
    if not due or _phase(pod) in ("Succeeded", "Failed"):
        return None
    left_s = max(0.0, seconds(due) + LOST_PATIENCE_S - now_s)
    if job is None:
        return Trouble(Diagnosis("KILLED", Cause.DELETED, "The Job was deleted", f"its node does not answer ({_node_of(pod)})"), left_s)
    words = _pod_condition(pod, "DisruptionTarget").get("message") or _node_of(pod)
    return Trouble(Diagnosis("FAILED", Cause.NODE_LOST, "The node does not answer any more", words, AGAIN), left_s)


def created_pods(events: Sequence[Object]) -> list[str]:
    """The names of the pods that a Job's events say were made for it, in order."""
    return re.findall(r"Created pod: (\S+)", "\n".join(event.get("message") or "" for event in events))


def seconds(stamp: str) -> float:
    """A time of the API (RFC 3339) as seconds since the epoch."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def cannot_start(pod: Object | None, job: Object | None, events: Sequence[Object], room: str = "") -> Trouble | None:
    """Why the run does not start. None: nothing is wrong.

    `events` are those of the pod, or of the Job while it has no pod; `room` says what is free on the nodes.
    """
    if pod is None:
        return _no_pod(events)
    return _unschedulable(pod, room) or _waiting_container(pod) or _volume(pod, events)


def not_started(pod: Object | None, job: Object | None, after_s: float) -> Diagnosis:
    """The end of a run that has not started within the target's `start_timeout`, though nothing is wrong with it."""
    hint = "raise 'start_timeout' in the target, or leave it out to wait for ever"
    if pod is not None and pod.get("spec", {}).get("nodeName"):
        image = pod["spec"]["containers"][0].get("image")
        return Diagnosis("FAILED", Cause.IMAGE_PULL_ERROR, f"The container has not started within {after_s:g} s", f"image {image}", hint)
    queued = " (it is in the queue)" if job and job.get("spec", {}).get("suspend") else ""
    return Diagnosis("FAILED", Cause.UNSCHEDULABLE, f"The run has not started within {after_s:g} s{queued}", hint=hint)


def waiting_for(pod: Object | None, job: Object | None, events: Sequence[Object], room: str = "", now_s: float = 0.0) -> str:
    """What a run that does not run yet is waiting for, in a few words; with `now_s`, the cluster's time, how long it has been pulling."""
    trouble = cannot_start(pod, job, events, room)
    if trouble:
        return f"waiting: {trouble.diagnosis.summary[:1].lower()}{trouble.diagnosis.summary[1:]}: {_line(trouble.diagnosis.detail)}"
    if pod is None:
        return "waiting in the queue" if job and job.get("spec", {}).get("suspend") else "waiting for a pod"
    reasons = [event.get("reason") for event in events]
    if "Pulling" in reasons and "Pulled" not in reasons:
        began = next(event for event in events if event.get("reason") == "Pulling").get("firstTimestamp")
        lasting = f", for {now_s - seconds(began):.0f} s" if began and now_s else ""
        return f"pulling image {pod['spec']['containers'][0]['image']}{lasting}"
    return "starting the container"


def _no_pod(events) -> Trouble | None:
    refused = [event["message"] for event in events if event.get("reason") == "FailedCreate"]
    if not refused:
        return None
    words = refused[-1]
    if "exceeded quota" in words:
        hint = "wait until others have ended, or ask for less in 'resources'"
        return Trouble(Diagnosis("FAILED", Cause.QUOTA_EXCEEDED, "The namespace's quota is used up", words, hint), None)
    known = (told for mark, told in REFUSED_BY.items() if mark in words)
    summary, hint = next(known, ("The pod cannot be created", "correct the target"))
    return Trouble(Diagnosis("FAILED", Cause.ADMISSION_DENIED, summary, words, hint), REFUSED_PATIENCE_S)


def _unschedulable(pod, room) -> Trouble | None:
    scheduled = _pod_condition(pod, "PodScheduled")
    if scheduled.get("status") != "False" or scheduled.get("reason") == "SchedulingGated":
        return None
    words = scheduled.get("message") or "no node takes the pod"
    short = short_of(pod)
    requests = (pod["spec"]["containers"][0].get("resources") or {}).get("requests") or {}
    asked = ", ".join(f"{name} {requests[name]}" for name in short if name in requests)
    if short:
        hint = f"the run asks for {asked or ', '.join(short)}: ask for less in 'resources', or wait until a node has that free"
    elif "taint" in words or "didn't match" in words:
        hint = "correct 'node_selector' or 'tolerations' in the target"
    else:
        hint = "see the nodes with: kubectl describe nodes"
    detail = f"{words.rstrip('.')}; {room}" if room else words
    return Trouble(Diagnosis("FAILED", Cause.UNSCHEDULABLE, "No node takes the pod", detail, hint), None)


def _waiting_container(pod) -> Trouble | None:
    waiting = _container(pod).get("state", {}).get("waiting", {})
    known = CANNOT_START.get(waiting.get("reason"))
    if known is None:
        return None
    cause, patience_s, hint = known
    summary = "The image cannot be had" if "Image" in cause else "The container cannot be made"
    return Trouble(Diagnosis("FAILED", cause, summary, waiting.get("message") or waiting["reason"], hint), patience_s)


def _volume(pod, events) -> Trouble | None:
    if _phase(pod) != "Pending" or not events or events[-1].get("reason") not in VOLUME_EVENTS:
        return None
    hint = "see the claim or Secret that it names: kubectl get pvc,secret"
    return Trouble(Diagnosis("FAILED", Cause.VOLUME_ERROR, "A volume cannot be mounted", events[-1]["message"], hint), VOLUME_PATIENCE_S)


def may_retry(job) -> bool:
    """Whether another pod may follow a failed one: the Job alone counts them."""
    return bool(job.get("spec", {}).get("backoffLimitPerIndex"))


def _stopped_from_outside(pod) -> bool:
    told = _told_by_runner(pod)
    disrupted = _pod_condition(pod, "DisruptionTarget").get("status") == "True"
    return disrupted or (told is not None and told.cause == Cause.TERMINATED)


def _of_pod(pod, failed) -> Diagnosis:
    """The checks in the order in which they are to be believed."""
    if failed and failed.get("reason") == "DeadlineExceeded":
        return _of_job(failed, _exit_code(pod))
    told = _told_by_runner(pod)
    if told and told.cause != Cause.TERMINATED:
        return told
    for check in (_node, _eviction, _memory, _start):
        if diagnosis := check(pod):
            return diagnosis
    code = _exit_code(pod)
    if told:
        return replace(STOPPED, exit_code=code)
    if _phase(pod) == "Succeeded":
        return Diagnosis("FINISHED", None, "", exit_code=0)
    if code is not None:
        return _of_code(code)
    status = pod.get("status", {})
    return Diagnosis("FAILED", Cause.UNKNOWN, "The pod failed", status.get("message") or status.get("reason") or "no reason given")


def _node(pod) -> Diagnosis | None:
    status, disruption = pod.get("status", {}), _pod_condition(pod, "DisruptionTarget")
    why = disruption.get("reason")
    words = disruption.get("message") or status.get("message") or ""
    code = _exit_code(pod)
    if why == "PreemptionByScheduler" or status.get("reason") in ("Preempting", "Preempted"):
        return Diagnosis("FAILED", Cause.PREEMPTED, "A pod of higher priority took the place", words, AGAIN, code)
    if why == "TerminationByKubelet" and "shutdown" in words.lower() or status.get("reason") in ("NodeShutdown", "Shutdown"):
        return Diagnosis("FAILED", Cause.NODE_SHUTDOWN, "The node was shut down", words, AGAIN, code)
    if status.get("reason") == "Terminated" and "shutdown" in words.lower():
        return Diagnosis("FAILED", Cause.NODE_SHUTDOWN, "The node was shut down", words, AGAIN, code)
    if why in ("DeletionByTaintManager", "DeletionByPodGC") or status.get("reason") == "NodeLost":
        return Diagnosis("FAILED", Cause.NODE_LOST, "The node was lost", words, AGAIN, code)
    return None


def _eviction(pod) -> Diagnosis | None:
    status, disruption = pod.get("status", {}), _pod_condition(pod, "DisruptionTarget")
    if status.get("reason") == "Evicted":
        words = status.get("message") or "the node was short of a resource"
        return Diagnosis(
            "FAILED", Cause.EVICTED, "The pod was evicted", words, "ask for what the run needs in 'resources'", _exit_code(pod)
        )
    if disruption.get("status") == "True" and disruption.get("reason") == "EvictionByEvictionAPI":
        words = disruption.get("message", "")
        return Diagnosis("FAILED", Cause.EVICTED, "The pod was evicted, as when a node is drained", words, AGAIN, _exit_code(pod))
    return None


def _memory(pod) -> Diagnosis | None:
    if _terminated(pod).get("reason") != "OOMKilled":
        return None
    limit = (pod["spec"]["containers"][0].get("resources") or {}).get("limits", {}).get("memory")
    limited = f" of {limit}" if limit else ""
    hint = "raise 'resources.memory' in the target"
    return Diagnosis(
        "FAILED", Cause.OOM_KILLED, f"The container needed more memory than its limit{limited}", hint=hint, exit_code=_exit_code(pod)
    )


def _start(pod) -> Diagnosis | None:
    terminated = _terminated(pod)
    if terminated.get("reason") not in ("StartError", "ContainerCannotRun"):
        return None
    words = terminated.get("message", "")
    return Diagnosis(
        "FAILED", Cause.ENVIRONMENT_ERROR, "The container could not start", words, "the image needs a python3", _exit_code(pod)
    )


def _of_job(condition, code=None, events=()) -> Diagnosis:
    """What the Job alone says, and events: the pod may have been collected before anybody looked."""
    words = condition.get("message") or ""
    if condition.get("reason") == "DeadlineExceeded":
        hint = "raise it, or make the run shorter"
        return Diagnosis("FAILED", Cause.DEADLINE_EXCEEDED, "The run was longer than the target's 'deadline'", hint=hint, exit_code=code)
    for event in reversed(events):
        if known := LEFT_BEHIND.get(event.get("reason")):
            cause, summary = known
            return Diagnosis("FAILED", cause, summary, event.get("message") or "", AGAIN)
    if "DisruptionTarget" in words:
        return Diagnosis("FAILED", Cause.EVICTED, "The cluster took the pod away (a drained or lost node, or preemption)", words, AGAIN)
    if exited := re.search(r"failed with exit code (\d+)", words):
        return _of_code(int(exited[1]))
    return Diagnosis("FAILED", Cause.UNKNOWN, "The Job failed", words or condition.get("reason"), exit_code=code)


def _of_code(code) -> Diagnosis:
    """A container's exit code is all that is known."""
    if code == 137:
        summary = "The container was killed from outside (SIGKILL)"
        return Diagnosis("FAILED", Cause.KILLED, summary, hint="see the node's events", exit_code=code)
    if code == 143:  # SIGTERM
        return replace(STOPPED, exit_code=code)
    return Diagnosis("FAILED", Cause.EXIT_CODE, f"The container exited with code {code}", hint="see the log", exit_code=code)


def _told_by_runner(pod) -> Diagnosis | None:
    """The runner leaves the end in the termination message, in case MLflow could not be told."""
    try:
        told = json.loads(_terminated(pod).get("message"))
        if told["status"] not in TERMINAL:
            return None  # it expected to be retried
        cause = told["cause"] and Cause(told["cause"])
        return Diagnosis(told["status"], cause, told["message"] or "", exit_code=told["exit_code"])
    except (TypeError, ValueError, KeyError):
        return None


def _node_of(pod) -> str:
    return f"node {pod.get('spec', {}).get('nodeName')}"


def _phase(pod):
    return pod.get("status", {}).get("phase")


def _container(pod) -> Object:
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return next((status for status in statuses if status.get("name") == "run"), statuses[0])


def _terminated(pod) -> Object:
    return _container(pod).get("state", {}).get("terminated", {})


def _exit_code(pod) -> int | None:
    return _terminated(pod).get("exitCode")


def _condition(job, kind):
    conditions = job.get("status", {}).get("conditions") or []
    return next((item for item in conditions if item["type"] == kind and item["status"] == "True"), None)


def _pod_condition(pod, kind) -> Object:
    conditions = pod.get("status", {}).get("conditions") or []
    return next((item for item in conditions if item["type"] == kind), {})


def _line(text: str) -> str:
    return " ".join(text.split())
