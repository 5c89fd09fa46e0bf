"""What the cluster shows of one run: its own Job, the pod of that Job that decides how the run is,
and the events that say more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_backend.places.kubernetes import diagnose
from mlflow_backend.places.kubernetes.members import deciding
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.places.kubernetes.ownership import (
    Claim,
    claim_of,
    is_claimed,
    is_labelled,
    is_part_of,
)
from mlflow_backend.supervision.record import RunRecord

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Observation:
    """What the cluster shows of the Job of `claim` at `now_s`, its own time: the Job, the pod that
    decides how the run is (`members.deciding`), None when there is none, and events.

    `events` are those of the pod, or of the Job while it has none. `room` says what is free on the
    nodes, if known. `stray` is the Job of a submit that may have broken off: it has the run's name
    and labels, but the run names no uid yet.
    """

    job: Object | None
    pod: Object | None
    events: Sequence[Object]
    now_s: float
    room: str = ""
    claim: Claim | None = None
    stray: Object | None = None


def look(cluster: Any, run: RunRecord) -> Observation:
    """What the cluster shows of the run now. `claim` is None where the run does not say that it was
    sent to this namespace.

    Raises ClusterError.
    """
    return look_for(cluster, run.run_id, claim_of(run))


def look_for(cluster: Any, run_id: str, claim: Claim | None) -> Observation:
    """`look` for callers that know the claim already, as one that has just submitted the run.

    Raises ClusterError.
    """
    if claim is None or claim.cluster_id != cluster.identity():
        return Observation(None, None, (), cluster.now_s())
    job = cluster.read_job(claim.job_name)
    if claim.job_uid is None:
        return Observation(
            None,
            None,
            (),
            cluster.now_s(),
            claim=claim,
            stray=job if job and is_labelled(run_id, job) else None,
        )
    job = job if job and is_claimed(claim, run_id, job) else None
    pods, _ = cluster.list_objects("Pod", f"{labels.RUN}={run_id}")
    pod = deciding(item for item in pods if is_part_of(claim, item))
    return Observation(job, pod, _events(cluster, claim, job, pod), cluster.now_s(), claim=claim)


def needs_events(job: Object | None, pod: Object | None) -> bool:
    """Whether events can tell something: the run has not started."""
    return is_active(job) and not diagnose.has_started(pod)


def is_active(job: Object | None) -> bool:
    """Whether the Job is there and may still run something."""
    if not job or job["metadata"].get("deletionTimestamp"):
        return False
    conditions = job.get("status", {}).get("conditions") or ()
    return not any(
        item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in conditions
    )


def _events(cluster: Any, claim: Claim, job: Object | None, pod: Object | None) -> Sequence[Object]:
    item = pod or job
    if item and needs_events(job, pod):
        return _of(
            item["metadata"]["uid"],
            cluster.list_events("Pod" if pod else "Job", item["metadata"]["name"]),
        )
    if job and pod is None and claim.job_uid:  # of a pod that is gone, events may still say why
        gone = diagnose.created_pods(_of(claim.job_uid, cluster.list_events("Job", claim.job_name)))
        return list(cluster.list_events("Pod", gone[-1])) if gone else ()
    return ()


def _of(uid: str, events: Sequence[Object]) -> list[Object]:
    """Without events of an earlier object of the same name."""
    return [event for event in events if (event.get("involvedObject") or {}).get("uid", uid) == uid]
