"""Wait for one run: follow its Job and pod, tell the user what it waits for, show its log, notice
its end.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlflow_backend.errors import ClusterError, ClusterUnavailable, TrackingUnavailable
from mlflow_backend.places.kubernetes import diagnose
from mlflow_backend.places.kubernetes.client.observe import Change
from mlflow_backend.places.kubernetes.diagnose import room
from mlflow_backend.places.kubernetes.log import PodLog, end_line
from mlflow_backend.places.kubernetes.look import Observation, look, look_for
from mlflow_backend.places.kubernetes.members import by_index, deciding
from mlflow_backend.places.kubernetes.ownership import claim_of, is_part_of
from mlflow_backend.places.kubernetes.runs import ClientRuns
from mlflow_backend.places.kubernetes.settle import foresee, judge, settle
from mlflow_backend.places.kubernetes.submitted_job import SubmittedJob
from mlflow_backend.supervision.record import RunRecord, has_ended

Object = Mapping[str, Any]
EXPLAIN_AFTER_S = 2.0
"""A pod that does not run after this time gets its events read, and again after twice the time
each.
"""
EXPLAIN_AGAIN_S = 300.0
MAX_BACKOFF_S = 15
LOG_DRAIN_S = 5.0
UNSEEN_LOGS = threading.BoundedSemaphore(32)
"""How many logs a process follows that it does not show: each is a connection to the API server.
Further runs end when the kubelet says so.
"""
LOG_AGAIN_S = (0.5, 15.0)
"""A log that broke off is asked for again after the first, then after twice the time each, at most
the second.
"""
SETTLE_AGAIN_S = 2.0
"""What is watched may be ahead of what is read: a run that seems over and is not is looked at again
after this.
"""
SIDECAR_S = 10.0
"""How long after a run's end its container may take to end, where the pod has others that may go
on.
"""
POD_GONE_S = 30.0
"""Beyond its grace period, how long the pod of a deleted Job is waited for."""


class Waiting:
    """One wait: what is known of the run's Job and pod, and what the user was told.

    What becomes of the run is `settle`'s decision.
    """

    def __init__(self, submitted: SubmittedJob, changes: "queue.Queue[Any]") -> None:
        self._submitted = submitted
        self._changes = changes
        self._claim = submitted.claim
        self._job: Object | None = {}  # empty: not seen yet; None: deleted
        self._pods: dict[int, Object] = {}  # the latest attempt at each index
        self._pod: Object | None = None  # of these, the one whose output is shown
        self._events: Sequence[Object] = ()
        self._pod_changed = threading.Event()
        self._log: threading.Thread | None = None
        self._log_is_whole = False
        self._announced = False
        self._explain_at: float | None = time.monotonic() + EXPLAIN_AFTER_S
        self._settle_at = 0.0
        self._began = time.monotonic()
        self._started = False
        self._room = ""

    def until_end(self) -> RunRecord:
        """The run as MLflow knows it once it has ended.

        Raises TrackingError, ClusterError, and what has ended the watches.
        """
        run = self._named()
        while run is None:
            try:
                self._take(self._changes.get(timeout=self._delay()))
            except queue.Empty:
                if self._explain_at is not None and time.monotonic() >= self._explain_at:
                    self._explain()
            run = self._ended()
        if self._log and self._submitted.stream and not self._log_is_whole:
            self._log.join(LOG_DRAIN_S)
        return run

    def _named(self) -> RunRecord | None:
        """Wait until the run names its Job's uid, which tells which changes are its own; the run,
        if it has ended before that.
        """
        while self._claim.job_uid is None:
            run = self._with_patience(self._settle_submit)
            if run is not None:
                return run
            if self._claim.job_uid is None:
                self._submitted.cluster.closing.wait(SETTLE_AGAIN_S)
        return None

    def _settle_submit(self) -> RunRecord | None:
        run = self._submitted.read()
        claim = claim_of(run)
        if claim and claim._replace(job_uid=None) == self._claim:
            self._claim = claim
        self._check_goes_on_here(run)
        has_ended_now = settle(
            ClientRuns(), self._submitted.cluster, run, look(self._submitted.cluster, run)
        ).ended
        return self._submitted.read() if has_ended_now else None

    def _check_goes_on_here(self, run: RunRecord) -> None:
        """Raises ClusterError for a run that another submit has taken up (`--run-id`, `RUN_ID`):
        what becomes of it is not told by this Job.
        """
        claim = claim_of(run)
        if claim == self._claim or self._claim.cluster_id is None or has_ended(run):
            return
        other = f" as Job {claim.job_name}" if claim else ""
        raise ClusterError(
            f"run {run.run_id}: another submit continues it{other}; Job {self._claim.job_name} no "
            "longer decides how it ends",
            code="WrongOwner",
            hint=f"wait for the run with: mlflow-compute wait {run.run_id}",
        )

    def _take(self, change: Change) -> None:
        if change.kind == "Error":
            raise change.value
        if change.kind == "Job" and (change.value or change.last or {}).get("metadata", {}).get(
            "uid"
        ) in (
            None,
            self._claim.job_uid,
        ):
            self._job = change.value
        elif change.kind == "Pod" and change.value is not None:
            if is_part_of(self._claim, change.value):
                self._take_pod(change.value)
        elif change.kind == "Pod":
            self._lose_pod(change.name, change.last)

    def _lose_pod(self, name: str, last: Object | None) -> None:
        """A pod is gone; one that was over is evidence, and outlives it."""
        for index, pod in list(self._pods.items()):
            if pod["metadata"]["name"] == name:
                del self._pods[index]
                if last and diagnose.is_over(last):
                    self._pods[index] = last
        self._pod = self._pods.get(min(self._pods, default=0))

    def _take_pod(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        others = [each for each in self._pods.values() if each["metadata"]["name"] != name]
        self._pods = by_index((*others, pod))
        if pod is not self._pods[min(self._pods)]:
            return  # another one has replaced it, or it is not the one whose output is shown
        if self._pod is not None and name != self._pod["metadata"]["name"]:
            self._pod, self._log, self._events = None, None, ()
        if self._pod is None or _state(pod) != _state(self._pod):
            self._explain_at = time.monotonic() + EXPLAIN_AFTER_S
        node = pod["spec"].get("nodeName")
        if node and not (self._pod or {}).get("spec", {}).get("nodeName"):
            self._submitted.progress.waiting(f"scheduled on node {node}")
        self._pod = pod
        self._pod_changed.set()
        if diagnose.has_started(pod):
            self._explain_at, self._started = None, True
            if self._log is None:
                self._begin_log(pod["metadata"]["name"], node)

    def _begin_log(self, name: str, node: str | None) -> None:
        """Follow the log of a pod that has started, also where it is not shown: its last line says
        that the run has ended, a second or two before the kubelet does.
        """
        submitted = self._submitted
        if submitted.stream:
            submitted.progress.say(f"running on node {node}")
        elif not submitted.mark or not UNSEEN_LOGS.acquire(blocking=False):
            return
        self._log = submitted.cluster.start_thread(lambda: self._follow(name), f"log-{name}")

    def _follow(self, name: str) -> None:
        try:
            self._follow_log(name)
        finally:
            if not self._submitted.stream:
                UNSEEN_LOGS.release()

    def _watched(self) -> Observation:
        """What the watches and the last look at events have shown."""
        submitted = self._submitted
        return Observation(
            self._job,
            deciding(self._pods.values()),
            self._events,
            submitted.cluster.now_s(),
            self._room,
            claim=self._claim,
        )

    def _delay(self) -> float | None:
        """Seconds until something is due without a change: an explanation, or the patience with
        what the run waits for.
        """
        now = time.monotonic()
        verdict = foresee(self._watched())
        due = [self._explain_at - now] if self._explain_at is not None else []
        due += [verdict.look_again_s] if verdict.look_again_s is not None else []
        due += (
            [self._settle_at - now]
            if verdict.ended or verdict.release_pod or self._announced
            else []
        )
        return max(0.0, min(due)) if due else None

    def _explain(self) -> None:
        """Nothing has changed for a while: find out what the run waits for, and say it."""
        self._explain_at = None
        cluster = self._submitted.cluster
        try:
            if self._job == {} and cluster.read_job(self._submitted.job_name) is None:
                self._job = None  # deleted before we began to watch
                return
            kind, name = (
                ("Pod", self._pod["metadata"]["name"])
                if self._pod
                else ("Job", self._submitted.job_name)
            )
            self._events = cluster.list_events(kind, name)
            self._room = room.describe(cluster, self._pod)
        except ClusterUnavailable:
            self._explain_at = time.monotonic() + EXPLAIN_AFTER_S
            return
        if not self._started:
            trouble = diagnose.cannot_start(self._pod, self._job, self._events, self._room)
            text = diagnose.waiting_for(
                self._pod, self._job, self._events, self._room, cluster.now_s()
            )
            self._submitted.progress.waiting(
                text, trouble.diagnosis.summary if trouble else text.partition(",")[0]
            )
            self._explain_at = time.monotonic() + min(
                EXPLAIN_AGAIN_S, max(EXPLAIN_AFTER_S, time.monotonic() - self._began)
            )

    def _ended(self) -> RunRecord | None:
        """The run if it has ended; MLflow is only asked when there is reason to think so."""
        verdict = foresee(self._watched())
        if (
            not (verdict.ended or verdict.release_pod or self._announced)
            or time.monotonic() < self._settle_at
        ):
            return None
        self._settle_at = time.monotonic() + SETTLE_AGAIN_S
        return self._with_patience(self._settle)

    def _settle(self) -> RunRecord | None:
        submitted = self._submitted
        run = submitted.read()
        self._check_goes_on_here(run)
        if not settle(ClientRuns(), submitted.cluster, run, self._fresh()).ended:
            self._announced = False
            return None
        if self._announced and _may_linger(self._pod):
            self._remove_what_lingers()
        return submitted.read()

    def _fresh(self) -> Observation:
        """As the API server has it now; of a pod that is gone already, how it ended."""
        seen = look_for(self._submitted.cluster, self._submitted.run_id, self._claim)
        return (
            replace(seen, pod=self._pod)
            if seen.pod is None and self._pod and diagnose.is_over(self._pod)
            else seen
        )

    def _remove_what_lingers(self) -> None:
        """The runner announces the end a moment before its container ends; what other containers
        hold is released after that.
        """
        until = time.monotonic() + SIDECAR_S
        while (left_s := until - time.monotonic()) > 0:
            seen = self._fresh()
            verdict = judge(self._submitted.read(), seen)
            if verdict.remove_job and seen.job:
                self._submitted.cluster.delete_job(
                    seen.job["metadata"]["name"], seen.job["metadata"]["uid"]
                )
            if verdict.remove_job or seen.job is None or not _may_linger(seen.pod):
                return
            self._submitted.cluster.closing.wait(min(1.0, left_s))

    def _with_patience(self, ask: Callable[[], RunRecord | None]) -> RunRecord | None:
        """A tracking server or cluster that does not answer for a while is no reason to leave the
        run alone; a refusal is.
        """
        import tenacity

        def say(state: tenacity.RetryCallState) -> None:
            error = state.outcome and state.outcome.exception()
            self._submitted.progress.say(f"could not read the run's status, retrying: {error}")

        retrying = tenacity.Retrying(
            wait=tenacity.wait_random_exponential(max=MAX_BACKOFF_S),
            retry=tenacity.retry_if_exception_type((TrackingUnavailable, ClusterUnavailable)),
            before_sleep=say,
        )
        return retrying(ask)

    def _follow_log(self, pod: str) -> None:
        """Show the log; taken up again after the last line shown when the connection breaks."""
        submitted, again_s = self._submitted, LOG_AGAIN_S[0]
        log = PodLog(end_line(submitted.run_id, submitted.mark))
        while True:
            try:
                since_s = log.since_s(submitted.cluster.now_s())
                if since_s is None and not submitted.stream:
                    since_s = 1
                for line in submitted.cluster.follow_log(pod, since_s):
                    text, is_last = log.take(line)
                    # not for a line that was shown before: each attempt begins with some
                    if text or is_last:
                        again_s = LOG_AGAIN_S[0]
                    if is_last:
                        self._announced = self._log_is_whole = True
                        self._changes.put(Change("Log", pod, None))
                    elif text and submitted.stream:
                        submitted.progress.output(text.decode(errors="replace"))
            except ClusterUnavailable:
                pass
            except ClusterError as error:
                if submitted.stream and not self._is_replaced(pod):
                    submitted.progress.say(f"the output could not be read: {error}")
                return
            self._pod_changed.wait(again_s)
            self._pod_changed.clear()
            again_s = min(2 * again_s, LOG_AGAIN_S[1])
            is_over = self._is_replaced(pod) or (
                self._pod is not None and diagnose.is_over(self._pod)
            )
            if (
                submitted.cluster.closing.is_set()
                or is_over
                or self._job is None
                or self._log_is_whole
            ):
                return

    def _is_replaced(self, pod: str) -> bool:
        return self._pod is not None and self._pod["metadata"]["name"] != pod


def _may_linger(pod: Object | None) -> bool:
    """Whether the pod has containers that may go on after the run's."""
    return (
        pod is not None
        and len(pod["spec"].get("containers") or ()) > 1
        and not diagnose.is_over(pod)
    )


def _state(pod: Object) -> tuple[Any, ...]:
    statuses = [
        *(pod["status"].get("initContainerStatuses") or ()),
        *(pod["status"].get("containerStatuses") or ()),
    ]
    waiting = [(status.get("state") or {}).get("waiting", {}).get("reason") for status in statuses]
    conditions = [(item["type"], item["status"]) for item in pod["status"].get("conditions") or ()]
    return pod["status"].get("phase"), waiting, conditions
