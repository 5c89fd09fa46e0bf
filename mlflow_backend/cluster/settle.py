"""Bring an MLflow run in line with what its Job shows. Safe to call at any time, by anybody, twice.

`judge` decides and is pure; `settle` carries it out. A waiting client, the controller
and the commands all come through here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mlflow_backend.cluster import diagnose, labels, room
from mlflow_backend.cluster.diagnose import Diagnosis
from mlflow_runner.causes import Cause
from mlflow_runner.ending import TERMINAL, is_told
from mlflow_runner.submission import TAG_CAUSE, TAG_NODE, TAG_SUBMITTED

SUBMIT_S = 60
"""A submit tags its run before it creates the Job: one that was submitted less than this ago may have none yet."""
UNFINISHED = (
    "attributes.status = 'RUNNING'",
    "attributes.status = 'SCHEDULED'",
    f"attributes.status = 'KILLED' AND tags.`{TAG_CAUSE}` = '{Cause.TERMINATED}'",
)
"""What MLflow is asked for to find runs without a final state, one after the other: its filters have no `or`.
The last are runs whose pod was stopped and whose Job has the last word."""
NEVER_RAN = {
    Cause.CANCELLED,
    Cause.IMAGE_PULL_ERROR,
    Cause.INVALID_IMAGE_NAME,
    Cause.CREATE_CONTAINER_CONFIG_ERROR,
    Cause.UNSCHEDULABLE,
    Cause.QUOTA_EXCEEDED,
    Cause.ADMISSION_DENIED,
    Cause.VOLUME_ERROR,
    Cause.NODE_LOST,
}
"""Ends after which the Job is in the way: somebody who wrote one of them may have been stopped before removing it."""


@dataclass(frozen=True)
class Known:
    """What MLflow knows of a run; `started_s` is when it was created, in seconds since the epoch.

    `deleted`: it is in MLflow's trash (lifecycle stage `deleted`), where it can be read but not changed.
    """

    run_id: str
    status: str
    tags: Mapping[str, str]
    started_s: float
    experiment_id: str = ""
    deleted: bool = False

    @property
    def submitted_s(self) -> float:
        """When it was last sent to a cluster, which may be long after it was created (`--run-id`)."""
        try:
            return diagnose.seconds(self.tags[TAG_SUBMITTED])
        except (KeyError, ValueError):
            return self.started_s


@dataclass(frozen=True)
class Seen:
    """What the cluster shows of a run at `now_s`, its own time: Job and newest pod, None when there is none, events of the pod or Job.

    `room` says what is free on the nodes, if somebody found out.
    """

    job: Mapping[str, Any] | None
    pod: Mapping[str, Any] | None
    events: Sequence[Mapping[str, Any]]
    now_s: float
    room: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is to be done: write `end` if there is one, delete the Job, look again after some seconds if nothing happens until then.

    `release_pod`: its node is lost, and the Job makes the next pod only when this one is deleted by force.
    """

    ended: bool
    end: Diagnosis | None = None
    remove_job: bool = False
    release_pod: bool = False
    look_again_s: float | None = None


class Runs(Protocol):
    """Where runs are read and written: MLflow, through whatever client."""

    def read(self, run_id: str) -> Known: ...

    def end(self, run_id: str, end: Diagnosis) -> None: ...


def has_ended(run: Known) -> bool:
    """Whether a run has its final status, told by the runner or a settler and not by the user's script alone."""
    return is_told(run.status, run.tags)


def judge(run: Known, seen: Seen) -> Verdict:
    """What the run's state should become. Pure: the same things seen give the same verdict, whoever looks."""
    if has_ended(run):
        return Verdict(True, remove_job=run.tags.get(TAG_CAUSE) in NEVER_RAN and is_active(seen.job))
    if run.status == "KILLED" and TAG_CAUSE not in run.tags:
        return Verdict(True, Diagnosis("KILLED", Cause.CANCELLED, "The run was marked KILLED in MLflow"), is_active(seen.job))
    if seen.job is None and seen.pod is None and not _had_job(run):
        return _broken_submit(run, seen)
    end = diagnose.ended(seen.job, seen.pod, seen.events)
    if end:
        stopped = run.tags.get(TAG_CAUSE) == Cause.TERMINATED and end.cause in (Cause.UNKNOWN, Cause.EXIT_CODE)
        return Verdict(True, diagnose.STOPPED if stopped else end)
    if seen.job and diagnose.may_retry(seen.job) and (late := diagnose.overdue(seen.job, seen.pod, seen.now_s)):
        return Verdict(False, release_pod=late.patience_s <= 0, look_again_s=late.patience_s or None)
    trouble, left_s = _trouble(seen)
    if trouble and left_s <= 0:
        return Verdict(True, trouble, remove_job=seen.job is not None)
    return Verdict(False, look_again_s=left_s if math.isfinite(left_s) else None)


def settle(runs: Runs, cluster: Any, run: Known, seen: Seen) -> Verdict:
    """Do what `judge` says of the run, as MLflow knows it at this moment. Raises what `runs` and `cluster` raise."""
    verdict = judge(run, seen)
    if verdict.end:
        run = runs.read(run.run_id)  # somebody may have been faster
        verdict = judge(run, seen)
    if verdict.end and verdict.end.cause == Cause.UNSCHEDULABLE:
        verdict = judge(run, replace(seen, room=room.describe(cluster, seen.pod)))
    if verdict.end:
        runs.end(run.run_id, verdict.end)
    if verdict.release_pod:
        cluster.release_pod(seen.pod["metadata"]["name"])
    if verdict.remove_job and seen.job:
        cluster.delete_job(seen.job["metadata"]["name"], seen.job["metadata"]["uid"])
    return verdict


def look(cluster: Any, run_id: str, job_name: str) -> Seen:
    """What the cluster shows of the run's Job now. The newest pod counts: an earlier one is of an attempt that is over."""
    job = cluster.read_job(job_name)
    pods, _ = cluster.list_objects("Pod", f"{labels.RUN}={run_id},job-name={job_name}")
    pod = max(pods, key=lambda item: item["metadata"]["creationTimestamp"], default=None)
    events = []
    if needs_events(job, pod):
        events = cluster.list_events("Pod" if pod else "Job", (pod or job)["metadata"]["name"])
    elif job and pod is None:  # of a pod that is gone, events may still say why
        gone = diagnose.created_pods(cluster.list_events("Job", job_name))
        events = cluster.list_events("Pod", gone[-1]) if gone else []
    return Seen(job, pod, events, cluster.now_s())


def needs_events(job: Mapping[str, Any] | None, pod: Mapping[str, Any] | None) -> bool:
    """Whether events can tell something: the run has not started."""
    return is_active(job) and (pod or {}).get("status", {}).get("phase", "Pending") == "Pending"


def start_timeout_s(job: Mapping[str, Any] | None) -> float | None:
    """The `start_timeout` of the run's target, in seconds, as its Job says."""
    text = (job or {}).get("metadata", {}).get("annotations", {}).get(labels.START_TIMEOUT)
    return float(text) if text else None


def _trouble(seen: Seen) -> tuple[Diagnosis | None, float]:
    """The end of a run that cannot go on, and in how many seconds that is certain; infinitely many when nothing says so."""
    if late := diagnose.overdue(seen.job, seen.pod, seen.now_s):
        return late.diagnosis, late.patience_s
    if not needs_events(seen.job, seen.pod):
        return None, math.inf
    trouble, timeout_s = diagnose.cannot_start(seen.pod, seen.job, seen.events, seen.room), start_timeout_s(seen.job)
    patience_s = math.inf if trouble is None or trouble.patience_s is None else trouble.patience_s
    hopeless_s = _left(seen.pod or seen.job, patience_s, seen.now_s)
    late_s = _left(seen.job, math.inf if timeout_s is None else timeout_s, seen.now_s)
    if trouble:
        return trouble.diagnosis, min(hopeless_s, late_s)
    return (diagnose.not_started(seen.pod, seen.job, timeout_s) if timeout_s else None), late_s


def _left(item: Mapping[str, Any], patience_s: float, now_s: float) -> float:
    return max(0.0, diagnose.seconds(item["metadata"]["creationTimestamp"]) + patience_s - now_s)


def _had_job(run: Known) -> bool:
    return run.status in (*TERMINAL, "SCHEDULED") or TAG_NODE in run.tags


def _broken_submit(run: Known, seen: Seen) -> Verdict:
    left_s = run.submitted_s + SUBMIT_S - seen.now_s
    if left_s > 0:
        return Verdict(False, look_again_s=left_s)
    hint = "submit it again"
    return Verdict(True, Diagnosis("FAILED", Cause.SUBMIT_ERROR, "The submit broke off before the Job was created", hint=hint))


def is_active(job: Mapping[str, Any] | None) -> bool:
    """Whether the Job is there and may still run something."""
    if not job or job["metadata"].get("deletionTimestamp"):
        return False
    conditions = job.get("status", {}).get("conditions") or ()
    return not any(item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in conditions)
