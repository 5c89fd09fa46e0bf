"""Settle every run of a namespace: the watch says where to look, and what is there is read anew before anything is decided."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlflow_backend.cluster import diagnose, labels
from mlflow_backend.cluster.api import Cluster
from mlflow_backend.cluster.look import Seen, is_active, look_for
from mlflow_backend.cluster.ownership import Claim, claim_of
from mlflow_backend.cluster.reflector import Reflector, job_of
from mlflow_backend.cluster.settle import foresee, settle
from mlflow_backend.controller.metrics import Metrics
from mlflow_backend.controller.runs import ServerRuns
from mlflow_backend.controller.work import WorkQueue
from mlflow_backend.errors import ClusterError
from mlflow_runner.submission import TAG_JOB
from mlflow_runner.tracking import Missing, Refused, Unavailable

log = logging.getLogger("mlflow_compute")

WORKERS = 4
KILLED_EVERY_S = 5.0
"""MLflow has no watch: for runs that somebody marks KILLED there it is asked, while there are Jobs, once for some hundred of them."""
WAITING_S = (10.0, 300.0)
"""A run that has not started is looked at again after as long as it has waited, but no sooner and no later than this."""
TERMINAL = ("Succeeded", "Failed")
CATCH_UP_EVERY_S = 60.0
CATCH_UP = ("", "")


class Controller:
    """One namespace. Keys of the queue are (run id, Job's name); `CATCH_UP` stands for all that MLflow holds unfinished."""

    def __init__(self, cluster: Cluster, tracking_uri: str):
        self.metrics = Metrics(self.active)
        self._cluster = cluster
        self._runs = ServerRuns(tracking_uri, lambda call: self.metrics.calls.labels("mlflow", call).inc())
        cluster.on_call = lambda call: self.metrics.calls.labels("kubernetes", call).inc()
        self._queue = WorkQueue()
        self._lock = threading.Lock()
        self._jobs: dict[str, Mapping[str, Any]] = {}
        self._pods: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
        self._suspects: set[tuple[str, str]] = set()
        self._listed: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._settled: set[str] = set()
        self._reflectors = {
            kind: Reflector(cluster, kind, labels.OURS, self._changed, self._have_listed, is_over)
            for kind, is_over in (("Pod", _pod_is_over), ("Job", lambda job: not is_active(job)))
        }

    def start(self) -> None:
        """Begin; everything happens in threads of its own."""
        work = [(f"watch-{kind}", reflector.follow) for kind, reflector in self._reflectors.items()]
        work += [(f"worker-{number}", self._work) for number in range(WORKERS)]
        for name, target in [*work, ("killed", self._look_for_killed)]:
            self._threads.append(threading.Thread(target=target, daemon=True, name=name))
            self._threads[-1].start()

    @property
    def is_healthy(self) -> bool:
        """Whether nothing of it has died: a cache that nobody feeds looks like peace (kubespawner#938)."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def is_ready(self) -> bool:
        """Whether everything has been listed once."""
        return self._listed == set(self._reflectors)

    def active(self) -> Mapping[str, int]:
        """How many runs wait for their start and how many run."""
        jobs = self._active_jobs()
        running = sum(1 for job in jobs if job.get("status", {}).get("ready"))
        return {"waiting": len(jobs) - running, "running": running}

    def _changed(self, kind: str, change: str, item: Mapping[str, Any]) -> None:
        job = job_of(kind, item)
        if job is None:
            return
        job_name = job.name
        run_id = item["metadata"]["labels"].get(labels.RUN)
        with self._lock:
            settled = _job_uid(kind, item) in self._settled
            if kind == "Job" and change != "DELETED" and is_active(item):
                self._jobs[job_name] = item
            elif kind == "Job":
                self._jobs.pop(job_name, None)
                if change == "DELETED":
                    self._settled.discard(item["metadata"]["uid"])
            elif settled or (change == "DELETED" and not _pod_is_over(item)):
                self._pods.get(job_name, {}).pop(item["metadata"]["uid"], None)
            else:
                self._pods[job_name][item["metadata"]["uid"]] = item  # the evidence outlives its pod
        if run_id and not settled:
            self._queue.add((run_id, job_name))

    def _active_jobs(self) -> list[Mapping[str, Any]]:
        with self._lock:
            return list(self._jobs.values())

    def _have_listed(self, kind: str) -> None:
        self._listed.add(kind)
        if self.is_ready:
            self._queue.add(CATCH_UP)

    def _work(self) -> None:
        while True:
            key = self._queue.take()
            failed = True
            try:
                self._catch_up() if key == CATCH_UP else self._look_at(*key)
                failed = False
            except (ClusterError, Unavailable, Refused) as error:  # a login that is refused may be mended
                self._try_again(key, error)
            except Exception as error:
                log.exception("a defect: run %s", key[0])
                self._try_again(key, error)
            finally:
                self._queue.done(key, failed)

    def _try_again(self, key, error: Exception) -> None:
        server = "kubernetes" if isinstance(error, ClusterError) else "mlflow"
        self.metrics.failures.labels(server).inc()
        after_s = self._queue.add_failed(key)
        log.warning("run %s: %s; again in %g s", key[0] or "(all unfinished)", error, after_s)

    def _catch_up(self) -> None:
        """After each complete list, and now and then: what ended or lost its Job unseen, and submits that broke off."""
        jobs = {job["metadata"]["name"] for job in self._active_jobs()}
        for run in self._runs.unfinished(self._cluster.identity() or ""):
            job_name = run.tags.get(TAG_JOB, "")
            if job_name and job_name not in jobs:
                self._queue.add((run.run_id, job_name))
        self._queue.add(CATCH_UP, CATCH_UP_EVERY_S)

    def _look_for_killed(self) -> None:
        while True:
            time.sleep(KILLED_EVERY_S)
            jobs = self._active_jobs()
            names = {job["metadata"]["labels"].get(labels.RUN, ""): job["metadata"]["name"] for job in jobs}
            experiments = {job["metadata"]["labels"].get(labels.EXPERIMENT, "") for job in jobs}
            try:
                for run in self._runs.killed(names.keys() - {""}, experiments - {""}):
                    key = (run.run_id, names[run.run_id])
                    self._suspects.add(key)
                    self._queue.add(key)
            except (Unavailable, Refused) as error:
                log.warning("runs marked KILLED cannot be asked for: %s", error)

    def _look_at(self, run_id: str, job_name: str) -> None:
        """MLflow is asked only when the cluster shows that the run is over, or somebody has marked it."""
        suspect = (run_id, job_name) in self._suspects
        with self._lock:
            job = self._jobs.get(job_name)
        seen = Seen(job, self._pod(job_name), (), self._cluster.now_s())
        verdict = foresee(seen)
        if job and not (suspect or verdict.ended or verdict.release_pod or _waits(seen)):
            self._look_later(run_id, job_name, _sooner(verdict.look_again_s, _next_look_s(seen)))
            return
        if job and not suspect:
            claim = Claim(job_name, job["metadata"]["uid"], self._cluster.identity())
            seen = self._fresh(run_id, claim)
            verdict = foresee(seen)
            if not (verdict.ended or verdict.release_pod):
                self._look_later(run_id, job_name, _sooner(verdict.look_again_s, _next_look_s(seen)))
                return
        try:
            before = self._runs.read(run_id)
        except Missing:
            log.warning("run %s, Job %s: MLflow does not know the run", run_id, job_name)
            return
        if claim_of(before) != seen.claim:
            seen = self._fresh(run_id, claim_of(before))
        verdict = settle(self._runs, self._cluster, before, seen)
        if verdict.ended:
            self._note(run_id, job_name, seen, verdict.end)
            self._suspects.discard((run_id, job_name))
        else:
            self._look_later(run_id, job_name, verdict.look_again_s)

    def _fresh(self, run_id: str, claim: Claim | None) -> Seen:
        """As the API server has it now; of a pod that is gone already, how it ended."""
        seen = look_for(self._cluster, run_id, claim)
        last = self._pod(claim.job_name) if claim else None
        is_own = last and seen.pod is None and _pod_is_over(last) and _job_uid("Pod", last) == claim.job_uid
        return replace(seen, pod=last) if is_own else seen

    def _pod(self, job_name: str) -> Mapping[str, Any] | None:
        with self._lock:
            pods = list(self._pods.get(job_name, {}).values())
        return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)

    def _look_later(self, run_id: str, job_name: str, after_s: float | None) -> None:
        if after_s is not None:
            self._queue.add((run_id, job_name), after_s + 0.1)

    def _note(self, run_id: str, job_name: str, seen: Seen, end: diagnose.Diagnosis | None) -> None:
        over_s = _ended_s(seen)
        if end:
            log.info("run %s: %s, %s: %s", run_id, end.status, end.cause, end.message)
            self.metrics.settled.labels(end.status, end.cause or "").inc()
            if over_s:
                self.metrics.settle_seconds.observe(max(0.0, seen.now_s - over_s))
        with self._lock:
            self._pods.pop(job_name, None)
            if seen.job:
                self._settled.add(seen.job["metadata"]["uid"])


def _waits(seen: Seen) -> bool:
    """Whether the run has not started for long enough that events may say why."""
    phase = (seen.pod or {}).get("status", {}).get("phase", "Pending")
    return phase == "Pending" and _age_s(seen) >= WAITING_S[0]


def _next_look_s(seen: Seen) -> float | None:
    phase = (seen.pod or {}).get("status", {}).get("phase", "Pending")
    if seen.job is None or phase != "Pending":
        return None
    return min(max(_age_s(seen), WAITING_S[0]), WAITING_S[1])


def _age_s(seen: Seen) -> float:
    return seen.now_s - diagnose.seconds(seen.job["metadata"]["creationTimestamp"]) if seen.job else 0.0


def _sooner(*times_s: float | None) -> float | None:
    return min((time_s for time_s in times_s if time_s is not None), default=None)


def _pod_is_over(pod: Mapping[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") in TERMINAL


def _job_uid(kind: str, item: Mapping[str, Any]) -> str | None:
    if kind == "Job":
        return item["metadata"]["uid"]
    return next((owner["uid"] for owner in item["metadata"].get("ownerReferences", ()) if owner["kind"] == "Job"), None)


def _ended_s(seen: Seen) -> float | None:
    """When the cluster saw the end, in seconds since the epoch: the container's or the Job's."""
    statuses = (seen.pod or {}).get("status", {}).get("containerStatuses") or ()
    times = [status["state"]["terminated"]["finishedAt"] for status in statuses if "terminated" in status.get("state", {})]
    times += [item["lastTransitionTime"] for item in (seen.job or {}).get("status", {}).get("conditions") or () if item["type"] == "Failed"]
    return max(map(diagnose.seconds, filter(None, times)), default=None)
