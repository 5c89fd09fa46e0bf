"""The words of a diagnosis, and how the objects of Kubernetes are read for one. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_backend.timestamps import seconds
from mlflow_runner.contract.causes import Cause

Object = Mapping[str, Any]
CONTAINER = "run"
"""The container of the run; all others of the pod serve it, and do not say how the run ended."""


@dataclass(frozen=True)
class Trouble:
    """Why a run does not start. It fails when that lasts longer than `patience_s` seconds; None: it
    may wait indefinitely.

    `since_s` is when it began, in seconds since the epoch; None: with the pod, or with the Job that
    has none.
    """

    diagnosis: Diagnosis
    patience_s: float | None
    since_s: float | None = None


def event_s(event: Object) -> float | None:
    """When what an event tells happened first, in seconds since the epoch: events of both API
    groups have it in another field.
    """
    stamp = (
        event.get("firstTimestamp")
        or event.get("eventTime")
        or event.get("metadata", {}).get("creationTimestamp")
    )
    return seconds(stamp) if stamp else None


def last_s(event: Object) -> float | None:
    """When what an event tells happened last: one that is repeated is counted in the same
    object.
    """
    stamp = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp")
    return seconds(stamp) if stamp else event_s(event)


def phase(pod: Object) -> str | None:
    """The pod's phase: Pending, Running, Succeeded, Failed or Unknown; None before it has one."""
    found: str | None = pod.get("status", {}).get("phase")
    return found


def is_over(pod: Object) -> bool:
    """Whether all of the pod's containers have ended for good."""
    return phase(pod) in ("Succeeded", "Failed")


def has_started(pod: Object | None) -> bool:
    """Whether the run's container runs or has ended: the pod's own phase is Pending while an image
    of another container is pulled.

    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
    """
    if pod is None:
        return False
    state = run_container(pod).get("state") or {}
    return phase(pod) not in (None, "Pending") or "running" in state or "terminated" in state


def outcome(pod: Object) -> str | None:
    """Succeeded or Failed once the run's container has ended: a sidecar that does not end keeps the
    pod's own phase at Running.

    None before (kubernetes#73118, katib#1042).
    """
    if is_over(pod):
        return phase(pod)
    code = exit_code(pod)
    return None if code is None or not lingers(pod) else "Succeeded" if code == 0 else "Failed"


def lingers(pod: Object | None) -> bool:
    """Whether the run's container has ended, and others of the pod run or still wait for their
    start.
    """
    if pod is None or is_over(pod) or not terminated(pod):
        return False
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return any(
        "terminated" not in (status.get("state") or {})
        for status in statuses
        if status.get("name") != CONTAINER
    )


def run_container(pod: Object) -> Object:
    """The status of the run's container; empty before there is one."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((status for status in statuses if status.get("name") == CONTAINER), {})


def run_spec(pod: Object) -> Object:
    """What the pod asks for its run's container: image and resources."""
    return next(
        (
            item
            for item in pod.get("spec", {}).get("containers") or ()
            if item.get("name") == CONTAINER
        ),
        {},
    )


def init_failure(status: Object, ended: Object, hint: str) -> Diagnosis:
    """The end of a run whose container did not start, as the init container of this status ended
    with a failure.
    """
    code = ended.get("exitCode")
    summary = f"The init container '{status.get('name')}' failed" + (
        f" with exit code {code}" if code is not None else ""
    )
    reason = ended.get("reason") if ended.get("reason") != "Error" else ""
    return Diagnosis(
        "FAILED", Cause.INIT_CONTAINER_FAILED, summary, ended.get("message") or reason or "", hint
    )


def init_statuses(pod: Object) -> Sequence[Object]:
    """The statuses of the pod's init containers, native sidecars among them."""
    return pod.get("status", {}).get("initContainerStatuses") or ()


def terminated(pod: Object) -> Object:
    """How the run's container ended; empty while it has not."""
    return (run_container(pod).get("state") or {}).get("terminated") or {}


def exit_code(pod: Object) -> int | None:
    """The exit code of the run's container; None while it has not ended."""
    return terminated(pod).get("exitCode")


def condition(job: Object, kind: str) -> Object | None:
    """The Job's condition of this type, if it is true."""
    conditions = job.get("status", {}).get("conditions") or ()
    return next(
        (item for item in conditions if item["type"] == kind and item["status"] == "True"), None
    )


def pod_condition(pod: Object, kind: str) -> Object:
    """The pod's condition of this type; empty where it has none."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((item for item in conditions if item["type"] == kind), {})


def node_of(pod: Object) -> str:
    """The pod's node, for people."""
    return f"node {pod.get('spec', {}).get('nodeName')}"
