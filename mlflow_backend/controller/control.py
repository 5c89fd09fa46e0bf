"""Settle every run of some namespaces: the watch says where to look, and the current state is read
before anything is decided.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from mlflow_backend.controller import pace
from mlflow_backend.controller.metrics import Metrics
from mlflow_backend.controller.namespace import Key, Namespace, pod_is_over
from mlflow_backend.controller.runs import ServerRuns
from mlflow_backend.controller.work import WorkQueue
from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.look import Observation, is_active, look_for
from mlflow_backend.places.kubernetes.ownership import Claim, claim_of
from mlflow_backend.places.kubernetes.settle import foresee, settle
from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_backend.supervision.record import RunRecord, has_ended
from mlflow_runner.contract.answers import Missing, Refused, Unavailable

log = logging.getLogger("mlflow_compute")

WORKERS = 4
STOPPED_EVERY_S = 5.0
"""MLflow has no watch: while there are Jobs, it is polled for runs that were marked KILLED or
deleted, with two calls for some hundred of them.
"""
IDENTIFY_AFTER_S = 5.0
"""The age of a Job at which its run is read from MLflow: a submit tags the run with the Job's uid
right after creating it.
"""
CATCH_UP_EVERY_S = 60.0
MAX_TRIES = 10
"""After so many failures, of MLflow rejecting the run or of the controller itself, a run is skipped
until its Job changes.
"""


class Controller:
    """The runs of some namespaces of one cluster, in one tracking server.

    It acts on a run only if the run's own tags name the Job (by its uid) and the namespace (by its
    uid).
    """

    def __init__(
        self, clusters: Sequence[Cluster], tracking_uri: str, queue: WorkQueue[Key] | None = None
    ) -> None:
        self.namespaces = {
            cluster.namespace: Namespace(cluster, self._changed, self._have_listed)
            for cluster in clusters
        }
        self.metrics = Metrics(self.active, self._readable)
        self._runs = ServerRuns(tracking_uri, partial(self._count_call, "mlflow", ""))
        for cluster in clusters:
            cluster.on_call = partial(self._count_call, "kubernetes", cluster.namespace)
        self._queue: WorkQueue[Key] = WorkQueue() if queue is None else queue
        self._suspects: set[Key] = set()
        self._given_up: set[Key] = set()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads that do everything."""
        work = {f"worker-{number}": self._work for number in range(WORKERS)} | {
            "stopped": self._look_for_stopped
        }
        for name, namespace in self.namespaces.items():
            work |= {
                f"watch-{name}-{kind}": reflector.follow
                for kind, reflector in namespace.reflectors.items()
            }
        for name, target in work.items():
            self._threads.append(threading.Thread(target=target, daemon=True, name=name))
            self._threads[-1].start()

    @property
    def is_healthy(self) -> bool:
        """Whether no thread has died: a cache without updates looks idle (kubespawner#938)."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def is_ready(self) -> bool:
        """Whether every readable namespace has been listed once, and at least one is readable."""
        namespaces = self.namespaces.values()
        return any(item.is_listed for item in namespaces) and all(
            item.is_listed or item.has_failed for item in namespaces
        )

    def active(self) -> Mapping[tuple[str, str], int]:
        """How many runs wait for their start and how many run, by namespace and state."""
        counts: dict[tuple[str, str], int] = {}
        for name, namespace in self.namespaces.items():
            jobs = [entry.job for entry in namespace.active()]
            running = sum(1 for job in jobs if (job or {}).get("status", {}).get("ready"))
            counts |= {(name, "waiting"): len(jobs) - running, (name, "running"): running}
        return counts

    def _readable(self) -> Mapping[str, bool]:
        """Empty for a replica that does not lead: it reads no namespace."""
        return (
            {name: namespace.is_readable for name, namespace in self.namespaces.items()}
            if self._threads
            else {}
        )

    def _count_call(self, server: str, namespace: str, call: str) -> None:
        self.metrics.calls.labels(server, namespace, call).inc()

    def _changed(self, key: Key) -> None:
        self._given_up.discard(key)
        self._queue.add(key)

    def _have_listed(self, namespace: Namespace) -> None:
        self._queue.add(Key(namespace.name))

    def _work(self) -> None:
        while True:
            self.attempt(self._queue.take())

    def attempt(self, key: Key) -> None:
        """Handle a key that was taken from the queue; after a failure it is queued again or given
        up.
        """
        is_repeated = False
        try:
            self.handle(key)
        except Exception as error:
            is_repeated = self._retry(key, error)
        finally:
            self._queue.done(key, is_repeated)

    def _retry(self, key: Key, error: Exception) -> bool:
        """Queue the key again after a failure, with a growing delay; whether it is queued."""
        is_defect = not isinstance(error, (ClusterError, Unavailable, Refused))
        server = "kubernetes" if isinstance(error, ClusterError) else "" if is_defect else "mlflow"
        self.metrics.failures.labels(server, key.namespace).inc()
        failures = self._queue.failures(key) + 1
        if is_defect and failures == 1:
            log.error("%s: internal error", key, exc_info=error)
        if key.run_id and failures >= MAX_TRIES and (is_defect or isinstance(error, Refused)):
            self._given_up.add(key)
            log.error(
                "%s: failed %d times, giving up until the Job changes: %s", key, failures, error
            )
            return False
        after_s = self._queue.add_failed(key)
        if failures & (failures - 1) == 0:  # 1, 2, 4, ...: a long outage does not fill the log
            log.warning("%s: %s; retrying in %g s", key, error, after_s)
        return True

    def handle(self, key: Key) -> None:
        """Look at one run, or at all unfinished runs of a namespace in MLflow.

        Raises ClusterError, Unavailable or Refused.
        """
        namespace = self.namespaces[key.namespace]
        if key.run_id:
            self._look_at(namespace, key)
        else:
            self._catch_up(namespace, key)

    def _catch_up(self, namespace: Namespace, key: Key) -> None:
        """After each complete list and every CATCH_UP_EVERY_S: runs that ended or lost their Job
        unnoticed, and interrupted submits.
        """
        cluster_id, active = namespace.identity(), {entry.key for entry in namespace.active()}
        for run in self._runs.unfinished(cluster_id):
            claim = claim_of(run)
            if claim is None or claim.cluster_id != cluster_id:
                continue
            unfinished = Key(namespace.name, run.run_id, claim.job_name, claim.job_uid or "")
            if unfinished in active:
                namespace.adopt(unfinished, run)
            else:
                self._add_quietly(unfinished)
        if self._queue.failures(key):
            self._given_up.clear()  # MLflow rejected every call, not only those of these runs
        self._queue.add(key, CATCH_UP_EVERY_S)

    def _look_for_stopped(self) -> None:
        while True:
            time.sleep(STOPPED_EVERY_S)
            try:
                self.look_for_stopped()
            except (Unavailable, Refused) as error:
                log.warning("could not read stopped runs from MLflow, retrying: %s", error)
            except Exception:
                log.exception("internal error: could not read stopped runs from MLflow")

    def look_for_stopped(self) -> None:
        """Queue the runs that were marked KILLED or deleted in MLflow while their Job is active.

        Raises Unavailable or Refused.
        """
        runs: dict[str, tuple[Key, RunRecord]] = {}
        for namespace in self.namespaces.values():
            runs |= namespace.runs()
        for run in self._runs.stopped([run for _, run in runs.values()]):
            claim = claim_of(run)
            if claim and claim.job_uid in runs:
                key, _ = runs[claim.job_uid]
                self._suspects.add(key)
                self._add_quietly(key)

    def _add_quietly(self, key: Key) -> None:
        """Queue a key that nothing has changed for, unless it failed."""
        if key not in self._given_up and not self._queue.failures(key):
            self._queue.add(key)

    def _look_at(self, namespace: Namespace, key: Key) -> None:
        """Settle a run, or queue it for later.

        MLflow is asked only when the cluster shows that the run has ended, when the run was stopped
        in MLflow, and once to identify the Job.
        """
        is_suspect = key in self._suspects
        claim = Claim(key.job, key.uid or None, namespace.identity())
        seen = namespace.cached(key)
        if not seen.job or is_suspect or pace.has_waited(seen) or _requires_action(seen):
            seen = self._read(namespace, key, claim)
        if not (is_suspect or _requires_action(seen) or self._is_to_identify(namespace, key, seen)):
            self._look_later(namespace, key, seen, foresee(seen).look_again_s)
            return
        try:
            run = self._runs.read(key.run_id)
        except Missing:
            self._ignore(namespace, key, seen, "the run does not exist in MLflow")
            return
        if not self._is_own(namespace, key, claim, run, seen):
            return
        namespace.adopt(key, run)
        if is_suspect or _requires_action(seen):
            self._settle(namespace, key, run, seen)
        else:
            self._look_later(namespace, key, seen, foresee(seen).look_again_s)

    def _settle(self, namespace: Namespace, key: Key, run: RunRecord, seen: Observation) -> None:
        verdict = settle(self._runs, namespace.cluster, run, seen)
        self._suspects.discard(key)
        if not verdict.ended:
            self._look_later(namespace, key, seen, verdict.look_again_s)
            return
        if verdict.end:
            self._note(key, seen, verdict.end)
        if verdict.remove_job:
            log.info("%s: the Job was deleted", key)
        if is_active(seen.job) and not verdict.remove_job:
            namespace.end(key)
        else:
            namespace.close(key, seen.job)

    def _is_own(
        self, namespace: Namespace, key: Key, claim: Claim, run: RunRecord, seen: Observation
    ) -> bool:
        """Whether the run names this Job.

        A run that names none yet is looked at again; any other is ignored.
        """
        named = claim_of(run)
        if named == claim:
            return True
        if (
            named is None
            or (named.job_name, named.cluster_id) != (claim.job_name, claim.cluster_id)
            or None not in (named.job_uid, claim.job_uid)
        ):
            self._ignore(namespace, key, seen, "the run does not name this Job")
        elif named.job_uid:
            self._add_quietly(key._replace(uid=named.job_uid))
        else:
            self._add_quietly(key._replace(uid=""))  # a submit that may have been interrupted
            if seen.job and not (has_ended(run) or run.is_deleted):
                self._queue.add(key, IDENTIFY_AFTER_S)
            else:
                namespace.close(key, seen.job)
        return False

    def _ignore(self, namespace: Namespace, key: Key, seen: Observation, why: str) -> None:
        if seen.job:
            log.info("%s: %s, ignored", key, why)
        self._suspects.discard(key)
        namespace.close(key, seen.job)

    def _read(self, namespace: Namespace, key: Key, claim: Claim) -> Observation:
        """The current state on the API server; the last state of a pod that no longer exists."""
        seen, last = look_for(namespace.cluster, key.run_id, claim), namespace.cached(key).pod
        return replace(seen, pod=last) if seen.pod is None and last and pod_is_over(last) else seen

    def _is_to_identify(self, namespace: Namespace, key: Key, seen: Observation) -> bool:
        return namespace.needs_run(key) and pace.age_s(seen) >= IDENTIFY_AFTER_S

    def _look_later(
        self, namespace: Namespace, key: Key, seen: Observation, after_s: float | None
    ) -> None:
        identify_s = (
            max(0.0, IDENTIFY_AFTER_S - pace.age_s(seen)) if namespace.needs_run(key) else None
        )
        after_s = pace.next_look_s(seen, after_s, identify_s)
        if after_s is not None:
            self._queue.add(key, after_s + 0.1)

    def _note(self, key: Key, seen: Observation, end: Diagnosis) -> None:
        log.info("%s: %s, %s: %s", key, end.status, end.cause, end.message)
        self.metrics.settled.labels(end.status, end.cause or "", key.namespace).inc()
        if over_s := pace.ended_s(seen):
            self.metrics.settle_seconds.labels(key.namespace).observe(max(0.0, seen.now_s - over_s))


def _requires_action(seen: Observation) -> bool:
    """Whether this state ends a run that is RUNNING in MLflow, or requires its pod to be
    released.
    """
    verdict = foresee(seen)
    return verdict.ended or verdict.release_pod
