"""How a run ended, from its Job, its pod and events. Pure."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from mlflow_backend.places.kubernetes.diagnose.model import (
    Object,
    Trouble,
    condition,
    exit_code,
    init_failure,
    init_statuses,
    is_over,
    lingers,
    node_of,
    outcome,
    pod_condition,
    run_spec,
    terminated,
)
from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_backend.timestamps import seconds
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import TERMINAL

LEFT_BEHIND = {
    "Preempted": (Cause.PREEMPTED, "A pod of higher priority took the place"),
    "Evicted": (Cause.EVICTED, "The pod was evicted"),
    "TaintManagerEviction": (Cause.NODE_LOST, "The node was lost"),
}
"""Events of a pod that outlive it, for about an hour."""
STOPPED = Diagnosis(
    "KILLED", Cause.DELETED, "The pod was stopped from outside, as by kubectl delete pod"
)
LOST_PATIENCE_S = 30
"""For how long beyond its grace period a pod may go on terminating before its node counts as lost.
"""
LINGER_S = 10
"""How long other containers may run after the run's container has ended, where they keep the Job
from going on.
"""
CAUSES = frozenset(map(str, Cause))
AGAIN = "submit it again, or set 'retries' in the target to have it go on by itself"


def ended(
    job: Object | None, pod: Object | None, events: Sequence[Object] = ()
) -> Diagnosis | None:
    """How the run of this Job has ended, or None while it may still run. A Job that is gone is
    None, one not seen yet is empty.

    A pod that was stopped from outside, or failed in a Job that may retry, is no end: its Job,
    which comes to know of it later, makes another one or says why not. `events` are those of a pod
    that is gone.
    """
    if job is None and pod is not None and outcome(pod) is None:
        return None  # being deleted too: its runner may still tell the end
    if (
        job is None
        and pod is not None
        and (told := told_by_runner(pod))
        and told.cause != Cause.TERMINATED
    ):
        return told
    if job is None:
        return Diagnosis(
            "KILLED",
            Cause.DELETED,
            "The Job was deleted",
            hint="submit the run again if that was not meant",
        )
    failed = condition(job, "Failed") or condition(job, "FailureTarget")
    if pod is None or (condition(job, "Failed") and outcome(pod) is None):
        return _of_job(failed, None, events) if failed else None
    if outcome(pod) is None:
        return None
    goes_on = outcome(pod) == "Failed" and (not job or may_retry(job) or _stopped_from_outside(pod))
    return _of_pod(pod, failed) if failed or not goes_on else None


def overdue(job: Object | None, pod: Object | None, now_s: float) -> Trouble | None:
    """A pod that is being deleted and should be gone: its node does not answer. `now_s` is the
    cluster's time.

    Its container may still run there, which cannot be known. The patience is what is left of it.
    """
    if pod is None or is_over(pod) or not (due := pod["metadata"].get("deletionTimestamp")):
        return None
    left_s = max(0.0, seconds(due) + LOST_PATIENCE_S - now_s)
    if job is None:
        return Trouble(
            Diagnosis(
                "KILLED",
                Cause.DELETED,
                "The Job was deleted",
                f"its node does not answer ({node_of(pod)})",
            ),
            left_s,
        )
    words = pod_condition(pod, "DisruptionTarget").get("message") or node_of(pod)
    return Trouble(
        Diagnosis("FAILED", Cause.NODE_LOST, "The node stopped answering", words, AGAIN),
        left_s,
    )


def left_over_s(pod: Object | None, now_s: float) -> float | None:
    """In how many seconds a pod has had its time in which only containers beside the run's go on;
    None for any other pod.

    To its Job such a pod has not ended: it makes no further pod, and does not fail, before it is
    deleted.
    """
    if pod is None or not lingers(pod):
        return None
    ended_at = terminated(pod).get("finishedAt")
    return max(0.0, seconds(ended_at) + LINGER_S - now_s) if ended_at else 0.0


def created_pods(events: Sequence[Object]) -> list[str]:
    """The names of the pods that a Job's events say were made for it, in order."""
    return re.findall(
        r"Created pod: (\S+)", "\n".join(event.get("message") or "" for event in events)
    )


def may_retry(job: Object | None) -> bool:
    """Whether another pod may follow a failed one: the Job alone counts them."""
    return bool((job or {}).get("spec", {}).get("backoffLimitPerIndex"))


def _stopped_from_outside(pod: Object) -> bool:
    told = told_by_runner(pod)
    disrupted = pod_condition(pod, "DisruptionTarget").get("status") == "True"
    return disrupted or (told is not None and told.cause == Cause.TERMINATED)


def _of_pod(pod: Object, failed: Object | None) -> Diagnosis:
    """The checks in the order in which they are to be believed."""
    if failed and failed.get("reason") == "DeadlineExceeded":
        return _of_job(failed, exit_code(pod))
    told = told_by_runner(pod)
    if told and told.cause != Cause.TERMINATED:
        return told
    for check in (_node, _eviction, _init, _memory, _start):
        if diagnosis := check(pod):
            return diagnosis
    code = exit_code(pod)
    if told:
        return replace(STOPPED, exit_code=code)
    if outcome(pod) == "Succeeded":
        return Diagnosis("FINISHED", None, "", exit_code=0)
    if code is not None:
        return _of_code(code)
    status = pod.get("status", {})
    return Diagnosis(
        "FAILED",
        Cause.UNKNOWN,
        "The pod failed",
        status.get("message") or status.get("reason") or "no reason given",
    )


def _node(pod: Object) -> Diagnosis | None:
    status, disruption = pod.get("status", {}), pod_condition(pod, "DisruptionTarget")
    why = disruption.get("reason")
    words = disruption.get("message") or status.get("message") or ""
    code = exit_code(pod)
    if why == "PreemptionByScheduler" or status.get("reason") in ("Preempting", "Preempted"):
        return Diagnosis(
            "FAILED", Cause.PREEMPTED, "A pod of higher priority took the place", words, AGAIN, code
        )
    if (why == "TerminationByKubelet" and "shutdown" in words.lower()) or status.get("reason") in (
        "NodeShutdown",
        "Shutdown",
    ):
        return Diagnosis(
            "FAILED", Cause.NODE_SHUTDOWN, "The node was shut down", words, AGAIN, code
        )
    if status.get("reason") == "Terminated" and "shutdown" in words.lower():
        return Diagnosis(
            "FAILED", Cause.NODE_SHUTDOWN, "The node was shut down", words, AGAIN, code
        )
    if why in ("DeletionByTaintManager", "DeletionByPodGC") or status.get("reason") == "NodeLost":
        return Diagnosis("FAILED", Cause.NODE_LOST, "The node was lost", words, AGAIN, code)
    return None


def _eviction(pod: Object) -> Diagnosis | None:
    status, disruption = pod.get("status", {}), pod_condition(pod, "DisruptionTarget")
    if status.get("reason") == "Evicted":
        words = status.get("message") or "the node was short of a resource"
        return Diagnosis(
            "FAILED",
            Cause.EVICTED,
            "The pod was evicted",
            words,
            "ask for what the run needs in 'resources'",
            exit_code(pod),
        )
    if disruption.get("status") == "True" and disruption.get("reason") == "EvictionByEvictionAPI":
        words = disruption.get("message", "")
        return Diagnosis(
            "FAILED",
            Cause.EVICTED,
            "The pod was evicted, as when a node is drained",
            words,
            AGAIN,
            exit_code(pod),
        )
    return None


def _memory(pod: Object) -> Diagnosis | None:
    if terminated(pod).get("reason") != "OOMKilled":
        return None
    limit = (run_spec(pod).get("resources") or {}).get("limits", {}).get("memory")
    limited = f" of {limit}" if limit else ""
    hint = "raise 'resources.memory' in the target"
    return Diagnosis(
        "FAILED",
        Cause.OOM_KILLED,
        f"The container needed more memory than its limit{limited}",
        hint=hint,
        exit_code=exit_code(pod),
    )


def _start(pod: Object) -> Diagnosis | None:
    ended_as = terminated(pod)
    if ended_as.get("reason") not in ("StartError", "ContainerCannotRun"):
        return None
    words = ended_as.get("message", "")
    return Diagnosis(
        "FAILED",
        Cause.ENVIRONMENT_ERROR,
        "The container could not start",
        words,
        "the image needs a python3",
        exit_code(pod),
    )


def _of_job(condition: Object, code: int | None = None, events: Sequence[Object] = ()) -> Diagnosis:
    """What the Job alone says, and events: the pod may have been collected before it was looked
    at.
    """
    words = condition.get("message") or ""
    if condition.get("reason") == "DeadlineExceeded":
        hint = "raise it, or make the run shorter"
        return Diagnosis(
            "FAILED",
            Cause.DEADLINE_EXCEEDED,
            "The run was longer than the target's 'deadline'",
            hint=hint,
            exit_code=code,
        )
    for event in reversed(events):
        if known := LEFT_BEHIND.get(event.get("reason", "")):
            cause, summary = known
            return Diagnosis("FAILED", cause, summary, event.get("message") or "", AGAIN)
    if "DisruptionTarget" in words:
        return Diagnosis(
            "FAILED",
            Cause.EVICTED,
            "The cluster took the pod away (a drained or lost node, or preemption)",
            words,
            AGAIN,
        )
    if exited := re.search(r"failed with exit code (\d+)", words):
        return _of_code(int(exited[1]))
    return Diagnosis(
        "FAILED",
        Cause.UNKNOWN,
        "The Job failed",
        words or condition.get("reason") or "",
        exit_code=code,
    )


def _of_code(code: int) -> Diagnosis:
    """A container's exit code is all that is known."""
    if code == 137:
        summary = "The container was killed from outside (SIGKILL)"
        return Diagnosis(
            "FAILED", Cause.KILLED, summary, hint="see the node's events", exit_code=code
        )
    if code == 143:  # SIGTERM
        return replace(STOPPED, exit_code=code)
    return Diagnosis(
        "FAILED",
        Cause.EXIT_CODE,
        f"The container exited with code {code}",
        hint="see the log",
        exit_code=code,
    )


def told_by_runner(pod: Object) -> Diagnosis | None:
    """The runner leaves the end in the termination message, in case MLflow could not be told.

    The command can write there too: it is believed only where it fits the exit code that the
    kubelet saw.
    """
    try:
        told = json.loads(terminated(pod).get("message") or "null")
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("status") not in TERMINAL:
        return None  # none of ours, or the runner expected to be retried
    code, cause, message = told.get("exit_code"), told.get("cause"), told.get("message")
    if (
        type(code) is not int
        or code != exit_code(pod)
        or (told["status"] == "FINISHED") != (code == 0 and cause is None)
    ):
        return None
    if not isinstance(message, (str, type(None))) or cause not in (None, *CAUSES):
        return None
    return Diagnosis(told["status"], cause and Cause(cause), message or "", exit_code=code)


def _init(pod: Object) -> Diagnosis | None:
    """An init container of the target's pod_template that failed: the run's container never
    started.

    One that restarts (a native sidecar) is stopped after the run's container, with any exit code:
    it says nothing about the run.
    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#sidecar-containers-and-pod-lifecycle
    """
    if terminated(pod):
        return None
    for status in init_statuses(pod):
        ended = (status.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return init_failure(
                status,
                ended,
                f"see its log: kubectl logs {pod['metadata'].get('name', 'POD')} -c "
                f"{status.get('name')}",
            )
    return None
