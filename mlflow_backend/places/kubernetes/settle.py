"""Bring an MLflow run in line with what its Job shows. Safe to call at any time, from any process,
twice.

`judge` decides and is pure; `settle` carries it out. A waiting client, the controller and the
commands all come through here.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlflow_backend.places.kubernetes import diagnose
from mlflow_backend.places.kubernetes.diagnose import room
from mlflow_backend.places.kubernetes.look import Observation, is_active, needs_events
from mlflow_backend.places.kubernetes.members import member_of, topology_of
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.places.kubernetes.ownership import claim_of
from mlflow_backend.supervision.children import end_children
from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_backend.supervision.record import RunRecord, Runs, has_ended
from mlflow_backend.timestamps import seconds
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import (
    is_by_hand,
    is_marked_failed,
    marked_failed,
)
from mlflow_runner.contract.tags import (
    TAG_CAUSE,
)
from mlflow_runner.contract.topology import NODES

log = logging.getLogger("mlflow_compute")
decisions = logging.getLogger(__name__)

SUBMIT_S = 60
"""A submit tags its run before it creates the Job, and names the Job's uid after that: both within
this time.
"""
JOB_LEFT_BEHIND = {
    Cause.CANCELLED,
    Cause.IMAGE_PULL_ERROR,
    Cause.INVALID_IMAGE_NAME,
    Cause.CREATE_CONTAINER_CONFIG_ERROR,
    Cause.INIT_CONTAINER_FAILED,
    Cause.UNSCHEDULABLE,
    Cause.QUOTA_EXCEEDED,
    Cause.ADMISSION_DENIED,
    Cause.VOLUME_ERROR,
    Cause.NODE_LOST,
    Cause.SUBMIT_ERROR,
}
"""Causes that may leave a Job behind: the process that recorded the cause may have died before it
deleted the Job.
"""


@dataclass(frozen=True)
class Verdict:
    """What to do: write `end` if there is one, delete the Job, look again after some seconds if
    nothing happens until then.

    `release_pod`: the Job cannot go on before this pod is deleted: its node is lost, or only
    sidecars are left of it.
    """

    ended: bool
    end: Diagnosis | None = None
    remove_job: bool = False
    release_pod: bool = False
    look_again_s: float | None = None


def judge(run: RunRecord, seen: Observation) -> Verdict:
    """What the run's state should become. Pure: the same things seen give the same verdict in every
    process.

    What is seen of another Job than the one that the run names now says nothing about the run.
    """
    claim = claim_of(run)
    if has_ended(run):
        is_own = claim is not None and claim == seen.claim
        return Verdict(True, remove_job=is_own and _is_in_the_way(run, seen))
    if claim is None or claim != seen.claim:
        return Verdict(False)
    if run.status == "KILLED" and is_by_hand(run.status, run.tags):
        return Verdict(
            True,
            Diagnosis("KILLED", Cause.CANCELLED, "The run was marked KILLED in MLflow"),
            is_active(seen.job or seen.stray),
        )
    if claim.job_uid is None:
        return _broken_submit(run, seen)
    verdict = _judge_job(seen, was_stopped=run.tags.get(TAG_CAUSE) == Cause.TERMINATED)
    if verdict.end and verdict.end.status == "FINISHED" and is_marked_failed(run.status, run.tags):
        code = verdict.end.exit_code or 0
        end = Diagnosis("FAILED", Cause.MARKED_FAILED, marked_failed(code), exit_code=code)
        return replace(verdict, end=end)
    return verdict


def foresee(seen: Observation) -> Verdict:
    """The verdict on a run that MLflow holds RUNNING, without asking MLflow: whether asking it is
    worth a call.
    """
    return _judge_job(seen, was_stopped=False)


def settle(runs: Runs, cluster: Any, run: RunRecord, seen: Observation) -> Verdict:
    """Do what `judge` says of the run, as MLflow knows it at this moment. Raises what `runs` and
    `cluster` raise.

    The order makes it safe to die after each step: a run whose nested runs have not all ended has
    not ended itself, so the next settler finds it; one that has ended and left its Job behind is
    known by its cause (JOB_LEFT_BEHIND) or its Job's pod.
    """
    verdict = judge(run, seen)
    decisions.debug("run %s, %s in MLflow: %s", run.run_id, run.status, verdict)
    if verdict.end:
        run = runs.read(run.run_id)  # another process may have been faster
        verdict = judge(run, seen)
    if verdict.end and verdict.end.cause == Cause.UNSCHEDULABLE:
        seen = replace(seen, room=room.describe(cluster, seen.pod))
        verdict = judge(run, seen)
    if verdict.ended and end_children(runs, run, verdict.end):
        run = runs.read(run.run_id)  # that may have taken long
        verdict = judge(run, seen)
    if verdict.end:
        runs.end(run.run_id, verdict.end)
    if verdict.release_pod and seen.pod:
        names = seen.pod["metadata"]
        cluster.release_pod(names["name"], names["uid"], by_force="deletionTimestamp" in names)
    job = seen.job or seen.stray
    if verdict.remove_job and job:
        cluster.delete_job(job["metadata"]["name"], job["metadata"]["uid"])
    return verdict


def start_timeout_s(job: Mapping[str, Any] | None) -> float | None:
    """The `start_timeout` of the run's target, in seconds, as its Job says."""
    text = (job or {}).get("metadata", {}).get("annotations", {}).get(labels.START_TIMEOUT)
    return float(text) if text else None


def _judge_job(seen: Observation, was_stopped: bool) -> Verdict:
    end = _end(seen)
    if end:
        is_vague = end.cause in (Cause.UNKNOWN, Cause.EXIT_CODE) and not (
            seen.pod and diagnose.told_by_runner(seen.pod)
        )
        return Verdict(
            True, diagnose.STOPPED if was_stopped and is_vague else end, remove_job=_lingers(seen)
        )
    if seen.job and (left_s := _until_release(seen)) is not None:
        return Verdict(False, release_pod=left_s <= 0, look_again_s=left_s or None)
    trouble, left_s = _trouble(seen)
    if trouble and left_s <= 0:
        return Verdict(True, trouble, remove_job=seen.job is not None)
    return Verdict(False, look_again_s=left_s if math.isfinite(left_s) else None)


def _end(seen: Observation) -> Diagnosis | None:
    """The end that Job and pod show. Of several nodes the failed one is named, and a node that
    finished ends nothing while others run.
    """
    end, topology = diagnose.ended(seen.job, seen.pod, seen.events), topology_of(seen.job)
    if end is None or seen.pod is None or topology.kind != NODES:
        return end
    if end.status == "FINISHED":
        return None if is_active(seen.job) else end
    return replace(end, summary=f"{topology.name(member_of(seen.pod).rank)}: {end.summary}")


def _until_release(seen: Observation) -> float | None:
    """In how many seconds the pod has to be deleted for its Job to go on; None where that is not in
    the pod's way.

    A Job that may retry goes on with another pod; one that may not fails then, and says why.
    """
    if late := diagnose.overdue(seen.job, seen.pod, seen.now_s):
        return late.patience_s if diagnose.may_retry(seen.job) else None
    return diagnose.left_over_s(seen.pod, seen.now_s)


def _is_in_the_way(run: RunRecord, seen: Observation) -> bool:
    """Whether the Job of a run that has ended is still there and would start or hold something."""
    left = run.is_deleted or run.tags.get(TAG_CAUSE) in JOB_LEFT_BEHIND
    return (left and is_active(seen.job or seen.stray)) or _lingers(seen)


def _lingers(seen: Observation) -> bool:
    """Whether a sidecar keeps the pod, and all that it holds, although the run's container has
    ended.
    """
    return is_active(seen.job) and diagnose.lingers(seen.pod)


def _trouble(seen: Observation) -> tuple[Diagnosis | None, float]:
    """The end of a run that cannot go on, and in how many seconds that is certain; infinitely many
    when nothing says so.
    """
    if late := diagnose.overdue(seen.job, seen.pod, seen.now_s):
        return late.diagnosis, _or_forever(late.patience_s)
    item = seen.pod or seen.job
    if item is None or not needs_events(seen.job, seen.pod):
        return None, math.inf
    trouble, timeout_s = (
        diagnose.cannot_start(seen.pod, seen.job, seen.events, seen.room),
        start_timeout_s(seen.job),
    )
    patience_s = _or_forever(trouble.patience_s if trouble else None)
    began_s = _created_s(item) if trouble is None or trouble.since_s is None else trouble.since_s
    hopeless_s = max(0.0, began_s + patience_s - seen.now_s)
    # the time to start counts for each pod that follows another
    is_retry = seen.pod is not None and member_of(seen.pod).attempt > 1
    first_s = _created_s(item if is_retry else seen.job or item)
    late_s = max(0.0, first_s + _or_forever(timeout_s) - seen.now_s)
    if trouble:
        return trouble.diagnosis, min(hopeless_s, late_s)
    return (diagnose.not_started(seen.pod, seen.job, timeout_s) if timeout_s else None), late_s


def _or_forever(patience_s: float | None) -> float:
    return math.inf if patience_s is None else patience_s


def _created_s(item: Mapping[str, Any]) -> float:
    return seconds(item["metadata"]["creationTimestamp"])


def _broken_submit(run: RunRecord, seen: Observation) -> Verdict:
    left_s = run.submitted_s + SUBMIT_S - seen.now_s
    if left_s > 0:
        return Verdict(False, look_again_s=left_s)
    hint = "submit it again"
    end = Diagnosis(
        "FAILED", Cause.SUBMIT_ERROR, "The submit broke off before the run knew its Job", hint=hint
    )
    return Verdict(True, end, remove_job=is_active(seen.stray))
