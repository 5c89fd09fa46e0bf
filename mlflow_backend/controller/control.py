"""Settle every run of some namespaces: the watch says where to look, and what is there is read
again before anything is decided.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlflow_backend.controller import pace
from mlflow_backend.controller.metrics import Metrics
from mlflow_backend.controller.namespace import Key, Namespace, pod_is_over
from mlflow_backend.controller.runs import ServerRuns
from mlflow_backend.controller.work import WorkQueue
from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.diagnose import Diagnosis
from mlflow_backend.places.kubernetes.look import Seen, is_active, look_for
from mlflow_backend.places.kubernetes.ownership import Claim, Known, claim_of
from mlflow_backend.places.kubernetes.settle import foresee, has_ended, settle
from mlflow_runner.contract.answers import Missing, Refused, Unavailable

log = logging.getLogger("mlflow_compute")

WORKERS = 4
STOPPED_EVERY_S = 5.0
"""MLflow has no watch: it is asked which runs were marked KILLED or deleted, while there are Jobs,
in two calls for some hundred of them.
"""
IDENTIFY_AFTER_S = 5.0
"""The age of a Job at which MLflow is asked whose it is: a submit names the Job's uid right after
creating it.
"""
CATCH_UP_EVERY_S = 60.0
MAX_TRIES = 10
"""A run that MLflow refuses, or that meets a defect here, as often as this is left alone until
something of it changes.
"""


class Controller:
    """The runs of some namespaces of one cluster, in one tracking server.

    It acts on a run only if the run's own tags name the Job (by its uid) and the namespace (by its
    uid).
    """

    def __init__(
        self, clusters: Sequence[Cluster], tracking_uri: str, queue: WorkQueue | None = None
    ):
        self.namespaces = {
            cluster.namespace: Namespace(cluster, self._changed, self._have_listed)
            for cluster in clusters
        }
        self.metrics = Metrics(self.active, self._readable)
        self._runs = ServerRuns(
            tracking_uri, lambda call: self.metrics.calls.labels("mlflow", "", call).inc()
        )
        for cluster in clusters:
            cluster.on_call = lambda call, name=cluster.namespace: self.metrics.calls.labels(
                "kubernetes", name, call
            ).inc()
        self._queue = WorkQueue() if queue is None else queue
        self._suspects: set[Key] = set()
        self._left_alone: set[Key] = set()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin; everything happens in threads of its own."""
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
        """Whether no thread has died: a cache that is not fed any more looks like peace
        (kubespawner#938).
        """
        return all(thread.is_alive() for thread in self._threads)

    @property
    def is_ready(self) -> bool:
        """Whether everything has been listed once, but for namespaces that could not be read while
        another one could.
        """
        namespaces = self.namespaces.values()
        return any(item.is_listed for item in namespaces) and all(
            item.is_listed or item.has_failed for item in namespaces
        )

    def active(self) -> Mapping[tuple[str, str], int]:
        """How many runs wait for their start and how many run, by namespace and state."""
        counts = {}
        for name, namespace in self.namespaces.items():
            jobs = [entry.job for entry in namespace.active()]
            running = sum(1 for job in jobs if (job or {}).get("status", {}).get("ready"))
            counts |= {(name, "waiting"): len(jobs) - running, (name, "running"): running}
        return counts

    def _readable(self) -> Mapping[str, bool]:
        """Nothing for a replica that does not lead: it reads no namespace."""
        return (
            {name: namespace.is_readable for name, namespace in self.namespaces.items()}
            if self._threads
            else {}
        )

    def _changed(self, key: Key) -> None:
        self._left_alone.discard(key)
        self._queue.add(key)

    def _have_listed(self, namespace: Namespace) -> None:
        self._queue.add(Key(namespace.name))

    def _work(self) -> None:
        while True:
            self.attempt(self._queue.take())

    def attempt(self, key: Key) -> None:
        """Handle a key that was taken from the queue; after a failure it is queued again, or left
        alone.
        """
        is_repeated = False
        try:
            self.handle(key)
        except Exception as error:
            is_repeated = self._retry(key, error)
        finally:
            self._queue.done(key, is_repeated)

    def _retry(self, key: Key, error: Exception) -> bool:
        """Have the key handled again after a failure, later each time; whether it will be."""
        is_defect = not isinstance(error, (ClusterError, Unavailable, Refused))
        server = "kubernetes" if isinstance(error, ClusterError) else "" if is_defect else "mlflow"
        self.metrics.failures.labels(server, key.namespace).inc()
        failures = self._queue.failures(key) + 1
        if is_defect and failures == 1:
            log.error("%s: a defect in the controller", key, exc_info=error)
        if key.run_id and failures >= MAX_TRIES and (is_defect or isinstance(error, Refused)):
            self._left_alone.add(key)
            log.error(
                "%s: failed %d times, left alone until the Job changes: %s", key, failures, error
            )
            return False
        after_s = self._queue.add_failed(key)
        if failures & (failures - 1) == 0:  # 1, 2, 4, ...: a long outage does not fill the log
            log.warning("%s: %s; retrying in %g s", key, error, after_s)
        return True

    def handle(self, key: Key) -> None:
        """Look at one run, or at all that MLflow holds unfinished.

        Raises ClusterError, Unavailable or Refused.
        """
        namespace = self.namespaces[key.namespace]
        if key.run_id:
            self._look_at(namespace, key)
        else:
            self._catch_up(namespace, key)

    def _catch_up(self, namespace: Namespace, key: Key) -> None:
        """After each complete list, and now and then: what ended or lost its Job unseen, and
        submits that broke off.
        """
        cluster_id, active = namespace.identity(), {entry.key for entry in namespace.active()}
        for run in self._runs.unfinished(cluster_id):
            claim = claim_of(run)
            if claim is None or claim.cluster_id != cluster_id:
                continue
            found = Key(namespace.name, run.run_id, claim.job_name, claim.job_uid or "")
            if found in active:
                namespace.adopt(found, run)
            else:
                self._add_quiet(found)
        if self._queue.failures(key):
            self._left_alone.clear()  # of runs that MLflow refused while it refused everything
        self._queue.add(key, CATCH_UP_EVERY_S)

    def _look_for_stopped(self) -> None:
        while True:
            time.sleep(STOPPED_EVERY_S)
            try:
                self.look_for_stopped()
            except (Unavailable, Refused) as error:
                log.warning("could not ask MLflow for stopped runs, retrying: %s", error)
            except Exception:
                log.exception("a defect in the controller: could not ask MLflow for stopped runs")

    def look_for_stopped(self) -> None:
        """Have the runs looked at that were marked KILLED or deleted in MLflow while their Job is
        active. Raises Unavailable or Refused.
        """
        runs: dict[str, tuple[Key, Known]] = {}
        for namespace in self.namespaces.values():
            runs |= namespace.runs()
        for run in self._runs.stopped([run for _, run in runs.values()]):
            claim = claim_of(run)
            if claim and claim.job_uid in runs:
                key, _ = runs[claim.job_uid]
                self._suspects.add(key)
                self._add_quiet(key)

    def _add_quiet(self, key: Key) -> None:
        """Have a key handled without an event that would ask for it: not sooner than its last
        failure allows.
        """
        if key not in self._left_alone and not self._queue.failures(key):
            self._queue.add(key)

    def _look_at(self, namespace: Namespace, key: Key) -> None:
        """MLflow is asked only when the cluster shows that the run is over, or the run was stopped
        there, and once whose the Job is.
        """
        is_suspect = key in self._suspects
        claim = Claim(key.job, key.uid or None, namespace.identity())
        seen = namespace.cached(key)
        if not seen.job or is_suspect or pace.has_waited(seen) or _calls_for_more(seen):
            seen = self._read(namespace, key, claim)
        if not (is_suspect or _calls_for_more(seen) or self._is_to_identify(namespace, key, seen)):
            self._look_later(namespace, key, seen, foresee(seen).look_again_s)
            return
        try:
            run = self._runs.read(key.run_id)
        except Missing:
            self._ignore(namespace, key, seen, "MLflow does not know the run")
            return
        if not self._is_own(namespace, key, claim, run, seen):
            return
        namespace.adopt(key, run)
        if is_suspect or _calls_for_more(seen):
            self._settle(namespace, key, run, seen)
        else:
            self._look_later(namespace, key, seen, foresee(seen).look_again_s)

    def _settle(self, namespace: Namespace, key: Key, run: Known, seen: Seen) -> None:
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

    def _is_own(self, namespace: Namespace, key: Key, claim: Claim, run: Known, seen: Seen) -> bool:
        """Whether the run names this Job.

        One that names none yet is looked at again; any other has nothing to do with it.
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
            self._add_quiet(key._replace(uid=named.job_uid))
        else:
            self._add_quiet(key._replace(uid=""))  # the submit, which may have broken off
            if seen.job and not (has_ended(run) or run.is_deleted):
                self._queue.add(key, IDENTIFY_AFTER_S)
            else:
                namespace.close(key, seen.job)
        return False

    def _ignore(self, namespace: Namespace, key: Key, seen: Seen, why: str) -> None:
        if seen.job:
            log.info("%s: %s, ignored", key, why)
        self._suspects.discard(key)
        namespace.close(key, seen.job)

    def _read(self, namespace: Namespace, key: Key, claim: Claim) -> Seen:
        """As the API server has it now; of a pod that is gone already, how it ended."""
        seen, last = look_for(namespace.cluster, key.run_id, claim), namespace.cached(key).pod
        return replace(seen, pod=last) if seen.pod is None and last and pod_is_over(last) else seen

    def _is_to_identify(self, namespace: Namespace, key: Key, seen: Seen) -> bool:
        return namespace.needs_run(key) and pace.age_s(seen) >= IDENTIFY_AFTER_S

    def _look_later(
        self, namespace: Namespace, key: Key, seen: Seen, after_s: float | None
    ) -> None:
        identify_s = (
            max(0.0, IDENTIFY_AFTER_S - pace.age_s(seen)) if namespace.needs_run(key) else None
        )
        after_s = pace.next_look_s(seen, after_s, identify_s)
        if after_s is not None:
            self._queue.add(key, after_s + 0.1)

    def _note(self, key: Key, seen: Seen, end: Diagnosis) -> None:
        log.info("%s: %s, %s: %s", key, end.status, end.cause, end.message)
        self.metrics.settled.labels(end.status, end.cause or "", key.namespace).inc()
        if over_s := pace.ended_s(seen):
            self.metrics.settle_seconds.labels(key.namespace).observe(max(0.0, seen.now_s - over_s))


def _calls_for_more(seen: Seen) -> bool:
    """Whether what is seen would end a run that MLflow holds for running, or has its pod
    released.
    """
    verdict = foresee(seen)
    return verdict.ended or verdict.release_pod
