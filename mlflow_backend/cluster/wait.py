"""Wait for one run: follow its Job and pod, tell the user what it waits for, show its log, notice its end."""

import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from mlflow_backend.cluster import diagnose, room
from mlflow_backend.cluster.api import Cluster
from mlflow_backend.cluster.look import Seen, look_for
from mlflow_backend.cluster.observe import Change, Observer
from mlflow_backend.cluster.ownership import Claim, Known
from mlflow_backend.cluster.runs import ClientRuns
from mlflow_backend.cluster.settle import has_ended, settle
from mlflow_backend.errors import ClusterError, TrackingUnavailable
from mlflow_backend.progress import Progress

EXPLAIN_AFTER_S = 2.0
"""A pod that does not run after this time gets its events read, and again after twice the time each."""
EXPLAIN_AGAIN_S = 300.0
MAX_BACKOFF_S = 15
LOG_DRAIN_S = 5.0
POD_GONE_S = 30.0
"""Beyond its grace period, how long the pod of a deleted Job is waited for."""


@dataclass(frozen=True)
class SubmittedJob:
    """A run that was submitted as the Job of `claim` to `cluster`. `mark` ends its runner's last line; `stream` shows its output."""

    cluster: Cluster
    observer: Observer
    claim: Claim
    run_id: str
    mark: str
    stream: bool
    grace_period_s: float
    start_timeout_s: float | None
    progress: Progress

    @property
    def job_name(self) -> str:
        return self.claim.job_name

    def known(self) -> Known:
        """What MLflow knows of the run now. Raises TrackingError."""
        return ClientRuns().read(self.run_id)


class Waiting:
    """One wait: what is known of the run's Job and pod, and what the user was told."""

    def __init__(self, submitted: SubmittedJob, changes: "queue.Queue[Any]"):
        self._submitted = submitted
        self._changes = changes
        self._job: Mapping[str, Any] | None = None
        self._job_deleted = False
        self._lost_at: float | None = None
        self._pod: Mapping[str, Any] | None = None
        self._pod_changed = threading.Event()
        self._log: threading.Thread | None = None
        self._announced = False
        self._explain_at: float | None = time.monotonic() + EXPLAIN_AFTER_S
        self._trouble: tuple[diagnose.Trouble, float] | None = None
        self._began = time.monotonic()
        self._started = False
        self._room = ""
        timeout_s = submitted.start_timeout_s
        self._start_by = None if timeout_s is None else time.monotonic() + timeout_s

    def until_end(self) -> Known:
        """The run as MLflow knows it once it has ended."""
        while True:
            try:
                self._take(self._changes.get(timeout=self._delay()))
            except queue.Empty:
                self._explain()
            run = self._ended()
            if run is not None:
                if self._log:
                    self._log.join(LOG_DRAIN_S)
                return run

    def _take(self, change) -> None:
        if change.kind == "Error":
            raise change.value
        if change.kind == "Job" and change.value is None:
            self._job_deleted = True
        elif change.kind == "Job":
            self._job = change.value
        elif change.kind == "Pod" and change.value is not None:
            self._take_pod(change.value)
        elif change.kind == "Pod" and self._pod is not None and change.name == self._pod["metadata"]["name"]:
            over = change.last["status"].get("phase") in ("Succeeded", "Failed")
            self._pod = change.last if over else None  # the evidence outlives its pod
        late = diagnose.overdue(None if self._job_deleted else self._job or {}, self._pod, self._submitted.cluster.now_s())
        self._lost_at = time.monotonic() + late.patience_s if late else None

    def _take_pod(self, pod) -> None:
        if self._pod is not None and pod["metadata"]["creationTimestamp"] < self._pod["metadata"]["creationTimestamp"]:
            return  # an earlier pod of this Job, which another one has replaced
        replaces = self._pod is not None and pod["metadata"]["name"] != self._pod["metadata"]["name"]
        if replaces:
            self._pod, self._log = None, None
        if self._pod is None or _state(pod) != _state(self._pod):
            self._explain_at = time.monotonic() + EXPLAIN_AFTER_S
        node = pod["spec"].get("nodeName")
        if node and not (self._pod or {}).get("spec", {}).get("nodeName"):
            self._submitted.progress.waiting(f"scheduled on node {node}")
        self._pod = pod
        self._pod_changed.set()
        if pod["status"].get("phase") not in (None, "Pending"):
            self._explain_at, self._started = None, True
            if self._log is None and self._submitted.stream:
                self._submitted.progress.say(f"running on node {node}")
                name = pod["metadata"]["name"]
                self._log = self._submitted.cluster.run_beside(lambda: self._follow_log(name), f"log-{name}")
        self._judge([])

    def _judge(self, events) -> None:
        """Note since when the run has been in its trouble, if it is in any."""
        trouble = None if self._started else diagnose.cannot_start(self._pod, self._job, events, self._room)
        if trouble is None:
            self._trouble = None
        elif self._trouble is None or self._trouble[0].diagnosis.cause != trouble.diagnosis.cause:
            self._trouble = (trouble, time.monotonic())
        else:
            self._trouble = (trouble, self._trouble[1])

    def _give_up_at(self) -> float | None:
        """When the run is to fail because it has not started: its trouble's patience or the target's start_timeout is over."""
        if self._started:
            return None
        moments = [self._start_by] if self._start_by is not None else []
        if self._trouble and self._trouble[0].patience_s is not None:
            moments.append(self._trouble[1] + self._trouble[0].patience_s)
        return min(moments, default=None)

    def _delay(self) -> float | None:
        candidates = (self._explain_at, self._lost_at, self._give_up_at())
        moments = [moment for moment in candidates if moment is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _explain(self) -> None:
        """Nothing has changed for a while: find out what the run waits for, and say it."""
        self._explain_at = None
        try:
            if self._job is None and self._submitted.cluster.read_job(self._submitted.job_name) is None:
                self._job_deleted = True  # before we began to watch
                return
        except ClusterError:
            self._explain_at = time.monotonic() + EXPLAIN_AFTER_S
            return
        kind, name = ("Pod", self._pod["metadata"]["name"]) if self._pod else ("Job", self._submitted.job_name)
        events = self._submitted.cluster.list_events(kind, name)
        self._room = room.describe(self._submitted.cluster, self._pod)
        self._judge(events)
        if not self._started:
            now_s = self._submitted.cluster.now_s()
            self._submitted.progress.waiting(diagnose.waiting_for(self._pod, self._job, events, self._room, now_s))
            self._explain_at = time.monotonic() + min(EXPLAIN_AGAIN_S, max(EXPLAIN_AFTER_S, time.monotonic() - self._began))

    def _ended(self) -> Known | None:
        """The run if it has ended; MLflow is only asked when there is reason to think so."""
        job = None if self._job_deleted else (self._job or {})
        over = diagnose.ended(job, self._pod) is not None
        give_up_at = self._give_up_at()
        hopeless = give_up_at is not None and time.monotonic() >= give_up_at
        lost = self._lost_at is not None and time.monotonic() >= self._lost_at
        if lost:
            self._lost_at = None  # once is enough: with retries another pod may follow
        if not (over or hopeless or lost or self._end_announced()):
            return None
        return self._with_patience(lambda: self._settle(job, hopeless))

    def _settle(self, job, hopeless: bool) -> Known | None:
        run = self._submitted.known()
        if hopeless and not has_ended(run):
            ClientRuns().end(run.run_id, self._why_not_started())
            self._submitted.cluster.delete_job(self._submitted.job_name, self._submitted.claim.job_uid)
        elif not settle(ClientRuns(), self._submitted.cluster, run, self._seen(job)).ended:
            return None
        return self._submitted.known()

    def _seen(self, job) -> Seen:
        """What was watched; read anew where the watch on Jobs may be ahead of the one on pods."""
        cluster = self._submitted.cluster
        if job and self._pod is None:
            return look_for(cluster, self._submitted.run_id, self._submitted.claim)
        return Seen(job, self._pod, (), cluster.now_s(), claim=self._submitted.claim)

    def _with_patience(self, ask: Callable[[], Any]) -> Any:
        """A tracking server or cluster that does not answer for a while is no reason to leave the run alone."""
        import tenacity

        said = self._submitted.progress.say
        return tenacity.Retrying(
            wait=tenacity.wait_random_exponential(max=MAX_BACKOFF_S),
            retry=tenacity.retry_if_exception_type((TrackingUnavailable, ClusterError)),
            before_sleep=lambda state: said(f"cannot find out how the run is, will keep trying: {state.outcome.exception()}"),
        )(ask)

    def _why_not_started(self) -> diagnose.Diagnosis:
        if self._trouble:
            return self._trouble[0].diagnosis
        return diagnose.not_started(self._pod, self._job, self._submitted.start_timeout_s)

    def _end_announced(self) -> bool:
        announced, self._announced = self._announced, False
        return announced

    def _follow_log(self, pod: str) -> None:
        """Show the log; taken up again behind the last line shown when the connection breaks."""
        end_line = f"run {self._submitted.run_id} has ended".encode()
        last = ""
        while True:
            since_s = None
            seen = last
            if last:
                since_s = int((datetime.now(timezone.utc) - _time(last)).total_seconds()) + 2
            try:
                for line in self._submitted.cluster.follow_log(pod, since_s):
                    stamp, _, text = line.partition(b" ")
                    last = stamp.decode()
                    if last <= seen:
                        continue
                    if end_line in text:
                        self._announced = True
                        self._changes.put(Change("Log", pod, None))
                        return
                    self._submitted.progress.output(text.decode(errors="replace"))
            except ClusterError:
                pass
            self._pod_changed.wait(0.5)
            self._pod_changed.clear()
            if self._submitted.cluster.closing.is_set():
                return
            if (self._pod or {}).get("status", {}).get("phase") in ("Succeeded", "Failed") or self._job_deleted:
                return


def _state(pod) -> tuple:
    waiting = [status.get("state", {}).get("waiting", {}).get("reason") for status in pod["status"].get("containerStatuses") or ()]
    conditions = [(item["type"], item["status"]) for item in pod["status"].get("conditions") or ()]
    return pod["status"].get("phase"), waiting, conditions


def _time(stamp: str) -> datetime:
    """An RFC 3339 time with nanoseconds, as the kubelet writes it."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", stamp).replace("Z", "+00:00"))
