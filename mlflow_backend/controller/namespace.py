"""A cache of the Jobs of one namespace and their pods, fed by watches, by the Job's uid."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes.client.answers import Object
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.reflector import Reflector, job_of
from mlflow_backend.places.kubernetes.look import Observation, is_active
from mlflow_backend.places.kubernetes.members import deciding
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.supervision.record import RunRecord

log = logging.getLogger("mlflow_compute")

TERMINAL = ("Succeeded", "Failed")


class Key(NamedTuple):
    """A run and its Job; `uid` is the Job's, empty for a run that names none.

    Without a run it stands for all unfinished runs of the namespace in MLflow.
    """

    namespace: str
    run_id: str = ""
    job: str = ""
    uid: str = ""

    def __str__(self) -> str:
        return (
            f"run {self.run_id}, Job {self.namespace}/{self.job}"
            if self.run_id
            else f"unfinished runs of namespace {self.namespace}"
        )


@dataclass
class Entry:
    """One Job: the object while it is active, its pods by their uid, and its run once the run's
    tags have confirmed this Job.

    `ended`: its run has ended while the Job is still active. `closed`: nothing is left to do, or
    the Job is not ours.
    """

    key: Key
    job: Object | None = None
    pods: dict[str, Object] = field(default_factory=dict)
    run: RunRecord | None = None
    ended: bool = False
    closed: bool = False


class Namespace:
    """One namespace. `changed` is called with the key of each Job that changed or whose pod did,
    `listed` after each complete list.

    Labels are hints and prove nothing: an object that is neither a run's Job nor a pod of one is
    logged once and skipped.
    """

    def __init__(
        self,
        cluster: Cluster,
        changed: Callable[[Key], None],
        listed: Callable[["Namespace"], None],
    ) -> None:
        self.cluster = cluster
        self.name = cluster.namespace
        self._tell_changed, self._tell_listed = changed, listed
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._skipped: set[str] = set()
        self._listed: set[str] = set()
        self._errors: dict[str, str] = {}
        self.reflectors = {
            kind: Reflector(
                cluster, kind, labels.OURS, self.take, self._have_listed, is_over, self._have_failed
            )
            for kind, is_over in (("Pod", pod_is_over), ("Job", lambda job: not is_active(job)))
        }

    @property
    def is_listed(self) -> bool:
        """Whether everything has been listed once."""
        return self._listed == set(self.reflectors)

    @property
    def is_readable(self) -> bool:
        """Whether the cache is up to date."""
        return self.is_listed and not self._errors

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt to read something failed."""
        return bool(self._errors)

    def identity(self) -> str:
        """The namespace's uid, which the tags of its runs name.

        Raises ClusterError where it cannot be read.
        """
        try:
            uid = self._read_identity()
        except ClusterError as error:
            self._have_failed("Namespace", error)
            raise
        self._errors.pop("Namespace", None)
        return uid

    def _read_identity(self) -> str:
        uid = self.cluster.identity()
        if not uid:
            raise ClusterError(
                f"namespace {self.name}: its uid could not be read",
                code="ClusterForbidden",
                hint="check that it exists, and allow the controller to get it",
            )
        return uid

    def take(self, kind: str, change: str, item: Object) -> None:
        """Cache a change of a Job or Pod: ADDED, MODIFIED or DELETED. An invalid object is logged:
        it must not end the watch.
        """
        try:
            key = key_of(self.name, kind, item)
            if key is None:
                self._skip(kind, change, item)
            elif self._note(key, kind, change, item):
                self._tell_changed(key)
        except Exception:
            log.exception("internal error: could not read a %s of namespace %s", kind, self.name)

    def active(self) -> list[Entry]:
        """The entries whose Job has not ended."""
        with self._lock:
            return [entry for entry in self._entries.values() if entry.job]

    def runs(self) -> dict[str, tuple[Key, RunRecord]]:
        """Key and run of each active Job with a confirmed run, by the Job's uid."""
        return {entry.key.uid: (entry.key, entry.run) for entry in self.active() if entry.run}

    def cached(self, key: Key) -> Observation:
        """The cached state of the Job and its newest pod."""
        with self._lock:
            entry = self._entries.get(key.uid)
            job, pods = (entry.job, list(entry.pods.values())) if entry else (None, [])
        return Observation(job, deciding(pods), (), self.cluster.now_s())

    def needs_run(self, key: Key) -> bool:
        """Whether the run of an active Job is not confirmed yet."""
        with self._lock:
            entry = self._entries.get(key.uid)
            return (
                entry is not None
                and entry.job is not None
                and entry.run is None
                and not entry.ended
            )

    def adopt(self, key: Key, run: RunRecord) -> None:
        """Note that the run's own tags name this Job."""
        with self._lock:
            if entry := self._entries.get(key.uid):
                entry.run = run

    def end(self, key: Key) -> None:
        """Note that the run has ended while its Job is still active, and may be removed later."""
        with self._lock:
            if entry := self._entries.get(key.uid):
                entry.run, entry.ended = None, True

    def close(self, key: Key, job: Object | None) -> None:
        """Note that nothing is left to do for this Job; `job` is None when it does not exist."""
        with self._lock:
            if job is None:
                self._entries.pop(key.uid, None)
            elif entry := self._entries.get(key.uid):
                entry.job, entry.run, entry.closed = None, None, True
                entry.pods.clear()

    def _note(self, key: Key, kind: str, change: str, item: Object) -> bool:
        """Cache the change; whether to look at the Job."""
        with self._lock:
            entry = self._entries.setdefault(key.uid, Entry(key))
            # a key from a pod has the labels of the Job's template: the Job's own are right
            if kind == "Job" and entry.key != key:
                entry = self._entries[key.uid] = Entry(key, pods=entry.pods)
            has_changed = _update(entry, kind, change, item)
            if entry.closed and kind == "Job" and change == "DELETED":
                del self._entries[key.uid]
            return has_changed and not entry.closed and entry.key == key

    def _skip(self, kind: str, change: str, item: Object) -> None:
        uid = item["metadata"]["uid"]
        if change == "DELETED":
            self._skipped.discard(uid)
        elif uid not in self._skipped:
            self._skipped.add(uid)
            log.info(
                "%s %s/%s: has our label but belongs to no run, ignored",
                kind,
                self.name,
                item["metadata"]["name"],
            )

    def _have_listed(self, kind: str) -> None:
        self._listed.add(kind)
        if self._errors.pop(kind, None):
            log.info("namespace %s: %ss are readable again", self.name, kind)
        if self.is_listed:
            self._tell_listed(self)

    def _have_failed(self, kind: str, error: BaseException) -> None:
        if self._errors.get(kind) != str(error):
            log.warning("namespace %s: could not read, retrying: %s", self.name, error)
        self._errors[kind] = str(error)


def key_of(namespace: str, kind: str, item: Object) -> Key | None:
    """The key of a Job, or of the Job that controls a pod; None if it has no run."""
    run_id, job = (item["metadata"].get("labels") or {}).get(labels.RUN), job_of(kind, item)
    return Key(namespace, run_id, job.name, job.uid) if run_id and job else None


def pod_is_over(pod: Object) -> bool:
    """Whether all containers of the pod have ended."""
    return pod.get("status", {}).get("phase") in TERMINAL


def _update(entry: Entry, kind: str, change: str, item: Object) -> bool:
    """Put the change into the entry; False if a later list only repeats it."""
    uid = item["metadata"]["uid"]
    cached = entry.job if kind == "Job" else entry.pods.get(uid)
    if cached and change != "DELETED" and _version(cached) == _version(item):
        return False
    if kind == "Job":
        entry.job = item if change != "DELETED" and is_active(item) and not entry.closed else None
    elif entry.closed or (change == "DELETED" and not pod_is_over(item)):
        entry.pods.pop(uid, None)
    else:
        entry.pods[uid] = item  # how a pod ended is kept after its deletion
    return True


def _version(item: Object) -> str | None:
    version: str | None = item["metadata"].get("resourceVersion")
    return version
