"""Why a run does not start, and since when. Pure."""

import re
from collections.abc import Iterable, Sequence

from mlflow_backend.places.kubernetes.diagnose.model import (
    Object,
    Trouble,
    event_s,
    has_started,
    init_failure,
    init_statuses,
    last_s,
    pod_condition,
    run_container,
    run_spec,
)
from mlflow_backend.places.kubernetes.diagnose.room import short_of
from mlflow_backend.supervision.diagnosis import Diagnosis, one_line
from mlflow_backend.timestamps import seconds
from mlflow_runner.contract.causes import Cause

CANNOT_START = {
    # reason of a waiting container: (cause, seconds before it counts as final, hint)
    "InvalidImageName": (Cause.INVALID_IMAGE_NAME, 0, "correct 'image' in the target"),
    "ErrImageNeverPull": (
        Cause.IMAGE_PULL_ERROR,
        0,
        "load the image on the node, or change 'image_pull_policy' in the target",
    ),
    "ErrImagePull": (
        Cause.IMAGE_PULL_ERROR,
        120,
        "correct 'image' or 'image_pull_secrets' in the target",
    ),
    "ImagePullBackOff": (
        Cause.IMAGE_PULL_ERROR,
        120,
        "correct 'image' or 'image_pull_secrets' in the target",
    ),
    "CreateContainerConfigError": (
        Cause.CREATE_CONTAINER_CONFIG_ERROR,
        30,
        "correct the target's 'secret' or 'pod_template'",
    ),
    "CreateContainerError": (
        Cause.CREATE_CONTAINER_CONFIG_ERROR,
        30,
        "correct the target's 'pod_template'",
    ),
}
"""Image errors wait: a registry that is slow or limits its rate for a moment is no failure."""
VOLUME_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
VOLUME_PATIENCE_S = 300
AFTER_VOLUMES = (
    "SuccessfulAttachVolume",
    "SuccessfulMountVolume",
    "Pulling",
    "Pulled",
    "Created",
    "Started",
)
"""Events that tell that a trouble with a volume before them is over."""
VOLUME = re.compile(r'volume "([^"]+)"')
CRASHING_PATIENCE_S = 300
"""A native sidecar may need something that comes later, as a service of its mesh."""
CONTAINER_EVENTS = ("Failed", "BackOff", "InspectFailed")
"""Events of a pod about a container that cannot start: pulling, inspecting, creating."""
REFUSED_PATIENCE_S = 30
"""A Job's controller tries to make the pod again, less and less often; a webhook may have been away
for a moment.
"""
AS_ASKED = "change the target as the message asks"
REFUSED_BY = {
    "violates PodSecurity": (
        "The namespace's Pod Security Standard refuses the pod",
        "correct the target's 'pod_template' or 'cache'",
    ),
    "admission webhook": ("An admission webhook refuses the pod", AS_ASKED),
    "ValidatingAdmissionPolicy": ("An admission policy refuses the pod", AS_ASKED),
}
"""Summary and hint by what the API server's message holds."""


def cannot_start(
    pod: Object | None, job: Object | None, events: Sequence[Object], room: str = ""
) -> Trouble | None:
    """Why the run does not start. None: nothing is wrong.

    `events` are those of the pod, or of the Job while it has no pod; `room` says what is free on
    the nodes.
    """
    if pod is None:
        return _no_pod(events)
    if has_started(pod):
        return None
    return (
        _unschedulable(pod, room)
        or _crashing_init(pod, events)
        or _waiting_container(pod, events)
        or _volume(pod, events)
    )


def not_started(pod: Object | None, job: Object | None, after_s: float) -> Diagnosis:
    """The end of a run that has not started within the target's `start_timeout`, though nothing is
    wrong with it.
    """
    hint = "raise 'start_timeout' in the target, or leave it out to wait indefinitely"
    if pod is not None and pod.get("spec", {}).get("nodeName"):
        what = f"image {run_spec(pod).get('image')}"
        return Diagnosis(
            "FAILED",
            Cause.IMAGE_PULL_ERROR,
            f"The container has not started within {after_s:g} s",
            what,
            hint,
        )
    queued = " (it is in the queue)" if job and job.get("spec", {}).get("suspend") else ""
    return Diagnosis(
        "FAILED",
        Cause.UNSCHEDULABLE,
        f"The run has not started within {after_s:g} s{queued}",
        hint=hint,
    )


def waiting_for(
    pod: Object | None,
    job: Object | None,
    events: Sequence[Object],
    room: str = "",
    now_s: float = 0.0,
) -> str:
    """What a run that does not run yet is waiting for, in a few words; with `now_s`, the cluster's
    time, how long it has been pulling.
    """
    trouble = cannot_start(pod, job, events, room)
    if trouble:
        summary, detail = trouble.diagnosis.summary, one_line(trouble.diagnosis.detail)
        return f"waiting: {summary[:1].lower()}{summary[1:]}" + (f": {detail}" if detail else "")
    if pod is None:
        return (
            "waiting in the queue"
            if job and job.get("spec", {}).get("suspend")
            else "waiting for a pod"
        )
    reasons = [event.get("reason") for event in events]
    if "Pulling" in reasons and "Pulled" not in reasons:
        began = next(event for event in events if event.get("reason") == "Pulling").get(
            "firstTimestamp"
        )
        lasting = f", for {now_s - seconds(began):.0f} s" if began and now_s else ""
        return f"pulling image {run_spec(pod).get('image')}{lasting}"
    return "starting the container"


def _no_pod(events: Sequence[Object]) -> Trouble | None:
    made = max(
        (index for index, event in enumerate(events) if event.get("reason") == "SuccessfulCreate"),
        default=-1,
    )
    refused = [event for event in events[made + 1 :] if event.get("reason") == "FailedCreate"]
    if not refused:
        return None
    words, since_s = refused[-1].get("message") or "", _first_s(refused)
    if "exceeded quota" in words:
        hint = "wait until others have ended, or ask for less in 'resources'"
        return Trouble(
            Diagnosis(
                "FAILED", Cause.QUOTA_EXCEEDED, "The namespace's quota is used up", words, hint
            ),
            None,
            since_s,
        )
    known = (told for mark, told in REFUSED_BY.items() if mark in words)
    summary, hint = next(known, ("The pod could not be created", "correct the target"))
    return Trouble(
        Diagnosis("FAILED", Cause.ADMISSION_DENIED, summary, words, hint),
        REFUSED_PATIENCE_S,
        since_s,
    )


def _unschedulable(pod: Object, room: str) -> Trouble | None:
    scheduled = pod_condition(pod, "PodScheduled")
    if scheduled.get("status") != "False" or scheduled.get("reason") == "SchedulingGated":
        return None
    words = scheduled.get("message") or "no node can take the pod"
    short = short_of(pod)
    requests = (run_spec(pod).get("resources") or {}).get("requests") or {}
    asked = ", ".join(f"{name} {requests[name]}" for name in short if name in requests)
    if short:
        hint = (
            f"the run asks for {asked or ', '.join(short)}: ask for less in 'resources', or wait "
            "until a node has that free"
        )
    elif "taint" in words or "didn't match" in words:
        hint = "correct 'node_selector' or 'tolerations' in the target"
    else:
        hint = "see the nodes with: kubectl describe nodes"
    detail = f"{words.rstrip('.')}; {room}" if room else words
    return Trouble(
        Diagnosis("FAILED", Cause.UNSCHEDULABLE, "No node can take the pod", detail, hint), None
    )


def _crashing_init(pod: Object, events: Sequence[Object]) -> Trouble | None:
    """A native sidecar that ends before it counts as started: Kubernetes restarts it, and starts
    the run's container only after that.

    Its state changes with each restart, and says CrashLoopBackOff in some versions only.
    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
    """
    restarted = {
        item.get("name")
        for item in pod.get("spec", {}).get("initContainers") or ()
        if item.get("restartPolicy") == "Always"
    }
    for status in init_statuses(pod):
        ended = _latest_end(status)
        if ended is not None and status.get("name") in restarted and not status.get("started"):
            told = _of_container(events, status.get("name"), is_pulled=True)
            diagnosis = init_failure(status, ended, "correct it in the target's 'pod_template'")
            return Trouble(diagnosis, CRASHING_PATIENCE_S, _since(pod, told))
    return None


def _latest_end(status: Object) -> Object | None:
    """How a container has ended that may have been started again since."""
    ends = ((status.get(name) or {}).get("terminated") for name in ("state", "lastState"))
    return next((end for end in ends if end), None)


def _waiting_container(pod: Object, events: Sequence[Object]) -> Trouble | None:
    """The first container that cannot start and without which the run's does not: an init
    container, or the run's own.
    """
    for status in (*init_statuses(pod), run_container(pod)):
        waiting = (status.get("state") or {}).get("waiting") or {}
        known = CANNOT_START.get(waiting.get("reason", ""))
        if known:
            cause, patience_s, hint = known
            summary = (
                "The image could not be pulled"
                if "Image" in cause
                else ("The container could not be created")
            )
            words = waiting.get("message") or waiting["reason"]
            detail = (
                words
                if status.get("name") in (None, "run")
                else f"container {status['name']}: {words}"
            )
            told = _of_container(
                events, status.get("name"), is_pulled=cause == Cause.CREATE_CONTAINER_CONFIG_ERROR
            )
            return Trouble(
                Diagnosis("FAILED", cause, summary, detail, hint), patience_s, _since(pod, told)
            )
    return None


def _of_container(events: Sequence[Object], name: str | None, is_pulled: bool) -> list[Object]:
    """The events of this container's trouble: not those of another container, nor those of its
    image once that `is_pulled`.
    """
    paths = [
        (event, (event.get("involvedObject") or {}).get("fieldPath") or "") for event in events
    ]
    own = [event for event, path in paths if not path or path.endswith(f"{{{name}}}")]
    pulled_s = (
        _first_s(event for event in own if event.get("reason") == "Pulled") if is_pulled else None
    )
    told = [event for event in own if event.get("reason") in CONTAINER_EVENTS]
    return [event for event in told if pulled_s is None or (event_s(event) or pulled_s) >= pulled_s]


def _volume(pod: Object, events: Sequence[Object]) -> Trouble | None:
    in_order = sorted(events, key=lambda event: last_s(event) or 0.0)
    if not in_order or in_order[-1].get("reason") not in VOLUME_EVENTS:
        return None
    hint = "see the claim or Secret that it names: kubectl get pvc,secret"
    now = in_order[-1]
    diagnosis = Diagnosis(
        "FAILED",
        Cause.VOLUME_ERROR,
        "A volume could not be mounted",
        now.get("message") or "",
        hint,
    )
    return Trouble(
        diagnosis, VOLUME_PATIENCE_S, _since(pod, _of_volume(in_order, now), _over_s(in_order, now))
    )


def _of_volume(events: Sequence[Object], now: Object) -> list[Object]:
    """The events of the trouble that the event `now` tells of: those of its volume, and those that
    name none.
    """
    return [
        event
        for event in events
        if event.get("reason") in VOLUME_EVENTS and _is_of_volume(event, now)
    ]


def _is_of_volume(event: Object, now: Object) -> bool:
    named, wanted = (set(VOLUME.findall(item.get("message") or "")) for item in (event, now))
    return not named or not wanted or bool(named & wanted)


def _over_s(events: Sequence[Object], now: Object) -> float | None:
    """When an earlier trouble with this volume was over; None where there was none."""
    moments = [
        last_s(event)
        for event in events
        if event.get("reason") in AFTER_VOLUMES and _is_of_volume(event, now)
    ]
    return max((moment for moment in moments if moment is not None), default=None)


def _since(pod: Object, told: Iterable[Object], over_s: float | None = None) -> float | None:
    """When a scheduled pod got into the trouble that these events tell of: never before it had a
    node, or an earlier one was over (`over_s`).
    """
    scheduled = pod_condition(pod, "PodScheduled").get("lastTransitionTime")
    moments = (seconds(scheduled) if scheduled else None, _first_s(told), over_s)
    return max((moment for moment in moments if moment is not None), default=None)


def _first_s(events: Iterable[Object]) -> float | None:
    return min((moment for event in events if (moment := event_s(event)) is not None), default=None)
