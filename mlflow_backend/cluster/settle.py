"""Bring an MLflow run in line with what its Job shows. Safe to call at any time, from any process, twice.

`judge` decides and is pure; `settle` carries it out. A waiting client, the controller
and the commands all come through here.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mlflow_backend.cluster import diagnose, labels, room
from mlflow_backend.cluster.diagnose import Diagnosis
from mlflow_backend.cluster.look import Seen, is_active, needs_events
from mlflow_backend.cluster.ownership import Known, claim_of
from mlflow_runner.causes import Cause
from mlflow_runner.ending import is_told
from mlflow_runner.submission import TAG_CAUSE, TAG_MESSAGE, TAG_STATUS

SEARCHES = 20
"""For children of one run that has ended, theirs included."""
SUBMIT_S = 60
"""A submit tags its run before it creates the Job, and names the Job's uid after that: both within this time."""
UNFINISHED = (
    "attributes.status = 'RUNNING'",
    "attributes.status = 'SCHEDULED'",
    f"attributes.status = 'KILLED' AND tags.`{TAG_CAUSE}` = '{Cause.TERMINATED}'",
    f"attributes.status = 'KILLED' AND tags.`{TAG_STATUS}` != 'KILLED'",
)
"""Filters that find the runs without a final state in MLflow, one search each: a filter has no `or`.
The last two are runs whose pod was stopped: nothing followed yet, or what followed died between the two writes of its end."""
JOB_LEFT_BEHIND = {
    Cause.CANCELLED,
    Cause.IMAGE_PULL_ERROR,
    Cause.INVALID_IMAGE_NAME,
    Cause.CREATE_CONTAINER_CONFIG_ERROR,
    Cause.UNSCHEDULABLE,
    Cause.QUOTA_EXCEEDED,
    Cause.ADMISSION_DENIED,
    Cause.VOLUME_ERROR,
    Cause.NODE_LOST,
    Cause.SUBMIT_ERROR,
}
"""Causes that may leave a Job behind: the process that recorded the cause may have died before it deleted the Job."""


@dataclass(frozen=True)
class Verdict:
    """What to do: write `end` if there is one, delete the Job, look again after some seconds if nothing happens until then.

    `release_pod`: its node is lost, and the Job makes the next pod only after this one is deleted by force.
    """

    ended: bool
    end: Diagnosis | None = None
    remove_job: bool = False
    release_pod: bool = False
    look_again_s: float | None = None


class Runs(Protocol):
    """Where runs are read and written: MLflow, through any client."""

    def read(self, run_id: str) -> Known: ...

    def end(self, run_id: str, end: Diagnosis) -> None: ...

    def children(self, run_id: str) -> Iterable[Known]:
        """The nested runs directly below a run that are RUNNING and have no Job of their own."""
        ...


def has_ended(run: Known) -> bool:
    """Whether a run has its final status, told by the runner or a settler and not by the user's script alone.

    Nothing can be written to a deleted run: it has ended too, whatever its status.
    """
    return run.is_deleted or is_told(run.status, run.tags)


def judge(run: Known, seen: Seen) -> Verdict:
    """What the run's state should become. Pure: the same things seen give the same verdict in every process.

    What is seen of another Job than the one that the run names now says nothing about the run.
    """
    claim = claim_of(run)
    is_own = claim is not None and claim == seen.claim
    if has_ended(run):
        return Verdict(True, remove_job=is_own and _is_in_the_way(run, seen))
    if not is_own:
        return Verdict(False)
    if run.status == "KILLED" and TAG_CAUSE not in run.tags and TAG_STATUS not in run.tags:
        return Verdict(True, Diagnosis("KILLED", Cause.CANCELLED, "The run was marked KILLED in MLflow"), is_active(seen.job or seen.stray))
    if claim.job_uid is None:
        return _broken_submit(run, seen)
    return _judge_job(seen, was_stopped=run.tags.get(TAG_CAUSE) == Cause.TERMINATED)


def foresee(seen: Seen) -> Verdict:
    """The verdict on a run that MLflow holds RUNNING, without asking MLflow: whether asking it is worth a call."""
    return _judge_job(seen, was_stopped=False)


def settle(runs: Runs, cluster: Any, run: Known, seen: Seen) -> Verdict:
    """Do what `judge` says of the run, as MLflow knows it at this moment. Raises what `runs` and `cluster` raise."""
    verdict = judge(run, seen)
    if verdict.end:
        run = runs.read(run.run_id)  # another process may have been faster
        verdict = judge(run, seen)
    if verdict.end and verdict.end.cause == Cause.UNSCHEDULABLE:
        verdict = judge(run, replace(seen, room=room.describe(cluster, seen.pod)))
    if verdict.end:
        runs.end(run.run_id, verdict.end)
    if verdict.release_pod:
        cluster.release_pod(seen.pod["metadata"]["name"])
    if verdict.ended:
        end_children(runs, run, verdict.end)
    job = seen.job or seen.stray
    if verdict.remove_job and job:
        cluster.delete_job(job["metadata"]["name"], job["metadata"]["uid"])
    return verdict


def end_children(runs: Runs, parent: Known, end: Diagnosis | None) -> None:
    """End the nested runs that a run which ended FAILED or KILLED left RUNNING: nothing else tells their end.

    `end` is the parent's where it has just been written; else its tags say how it ended.
    """
    status = end.status if end else parent.status
    if status not in ("FAILED", "KILLED") or parent.is_deleted:
        return
    cause = end.cause if end else parent.tags.get(TAG_CAUSE)
    told = end.message if end else parent.tags.get(TAG_MESSAGE, "")
    parents = [parent.run_id]
    for _ in range(SEARCHES):
        if not parents:
            return
        parent_id = parents.pop(0)
        for child in runs.children(parent_id):
            runs.end(child.run_id, Diagnosis(status, cause, f"Its parent run {parent_id} ended", told))
            parents.append(child.run_id)


def start_timeout_s(job: Mapping[str, Any] | None) -> float | None:
    """The `start_timeout` of the run's target, in seconds, as its Job says."""
    text = (job or {}).get("metadata", {}).get("annotations", {}).get(labels.START_TIMEOUT)
    return float(text) if text else None


def _judge_job(seen: Seen, was_stopped: bool) -> Verdict:
    end = diagnose.ended(seen.job, seen.pod, seen.events)
    if end:
        told = diagnose.STOPPED if was_stopped and end.cause in (Cause.UNKNOWN, Cause.EXIT_CODE) else end
        return Verdict(True, told, remove_job=_lingers(seen))
    if seen.job and diagnose.may_retry(seen.job) and (late := diagnose.overdue(seen.job, seen.pod, seen.now_s)):
        return Verdict(False, release_pod=late.patience_s <= 0, look_again_s=late.patience_s or None)
    trouble, left_s = _trouble(seen)
    if trouble and left_s <= 0:
        return Verdict(True, trouble, remove_job=seen.job is not None)
    return Verdict(False, look_again_s=left_s if math.isfinite(left_s) else None)


def _is_in_the_way(run: Known, seen: Seen) -> bool:
    """Whether the Job of a run that has ended is still there and would start or hold something."""
    left = run.is_deleted or run.tags.get(TAG_CAUSE) in JOB_LEFT_BEHIND
    return left and is_active(seen.job or seen.stray) or _lingers(seen)


def _lingers(seen: Seen) -> bool:
    """Whether a sidecar keeps the pod, and all that it holds, although the run's container has ended."""
    return is_active(seen.job) and diagnose.lingers(seen.pod)


def _trouble(seen: Seen) -> tuple[Diagnosis | None, float]:
    """The end of a run that cannot go on, and in how many seconds that is certain; infinitely many when nothing says so."""
    if late := diagnose.overdue(seen.job, seen.pod, seen.now_s):
        return late.diagnosis, late.patience_s
    if not needs_events(seen.job, seen.pod):
        return None, math.inf
    trouble, timeout_s = diagnose.cannot_start(seen.pod, seen.job, seen.events, seen.room), start_timeout_s(seen.job)
    patience_s = math.inf if trouble is None or trouble.patience_s is None else trouble.patience_s
    began_s = _created_s(seen.pod or seen.job) if trouble is None or trouble.since_s is None else trouble.since_s
    hopeless_s = max(0.0, began_s + patience_s - seen.now_s)
    first_s = _created_s(seen.pod if seen.pod and _is_retry(seen.pod) else seen.job)
    late_s = max(0.0, first_s + (math.inf if timeout_s is None else timeout_s) - seen.now_s)
    if trouble:
        return trouble.diagnosis, min(hopeless_s, late_s)
    return (diagnose.not_started(seen.pod, seen.job, timeout_s) if timeout_s else None), late_s


def _created_s(item: Mapping[str, Any]) -> float:
    return diagnose.seconds(item["metadata"]["creationTimestamp"])


def _is_retry(pod: Mapping[str, Any]) -> bool:
    """Whether another pod of the Job ran before: the time to start counts for each pod then."""
    notes = pod["metadata"].get("annotations") or {}
    return notes.get("batch.kubernetes.io/job-index-failure-count", "0") != "0"


def _broken_submit(run: Known, seen: Seen) -> Verdict:
    left_s = run.submitted_s + SUBMIT_S - seen.now_s
    if left_s > 0:
        return Verdict(False, look_again_s=left_s)
    hint = "submit it again"
    end = Diagnosis("FAILED", Cause.SUBMIT_ERROR, "The submit broke off before the run knew its Job", hint=hint)
    return Verdict(True, end, remove_job=is_active(seen.stray))
