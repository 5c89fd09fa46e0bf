"""Shared watches: one on the pods and one on the Jobs of a namespace, however many runs a process
waits for.

For the consumer (wait.py): a watch that cannot continue ends for all its waiters. Each of their
queues then gets `Change("Error", "", error)`, once, with the exception as `value`: a ClusterError
that repeating does not help (403, an expired login), or a defect. Nothing follows it, and the
consumer raises it. An outage of the server is no such error: the watch resumes by itself.
"""

import logging
import queue
import threading
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from mlflow_backend.places.kubernetes.client.answers import Object
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.reflector import Reflector, job_of
from mlflow_backend.places.kubernetes.client.streams import Stop

log = logging.getLogger(__name__)

KINDS = ("Pod", "Job")
VALUES = 100
"""A selector with more values is longer than proxies accept: then all objects with the label are
watched.
"""


class Change(NamedTuple):
    """`value` is the current state of the Pod or Job (`kind`) of this name, None when it was
    deleted; `last` is its state at that time.

    Of kind `Error`, `value` is the exception that ended the watch.
    """

    kind: str
    name: str
    value: Any
    last: Object | None = None


@dataclass(frozen=True)
class Observer:
    """The changes of Jobs with the label `label=value`, and of their pods.

    Cheap: all observers of a label share two watches.
    """

    cluster: Cluster
    label: str
    value: str

    def subscribe(self, job_name: str) -> "queue.Queue[Change]":
        """A queue that gets the cached Job and pods at once, then every Change, possibly one of
        them twice.
        """
        return self._watch.subscribe(job_name, self.value)

    def unsubscribe(self, job_name: str, changes: "queue.Queue[Change]") -> None:
        """Stop filling the queue; the watches end with the last waiter."""
        self._watch.unsubscribe(job_name, self.value, changes)

    @property
    def _watch(self) -> "SharedWatch":
        new = SharedWatch(self.cluster, self.label)
        watch: SharedWatch = self.cluster.watches.setdefault(self.label, new)
        return watch


class SharedWatch:
    """The two watches of a label, which run while there are waiters, and the waiters' queues."""

    def __init__(self, cluster: Cluster, label: str) -> None:
        self._cluster, self._label = cluster, label
        self._lock = threading.Lock()
        self._queues: dict[str, list[queue.Queue[Change]]] = {}
        self._values: Counter[str] = Counter()
        self._selected: frozenset[str] = frozenset()
        self._reflectors: dict[str, Reflector] = {}

    def subscribe(self, job_name: str, value: str) -> "queue.Queue[Change]":
        """As `Observer.subscribe`, for a Job whose label has this value."""
        changes: queue.Queue[Change] = queue.Queue()
        with self._lock:
            self._queues.setdefault(job_name, []).append(changes)
            self._values[value] += 1
            for kind, reflector in self._reflectors.items():
                for item in list(reflector.items.values()):
                    if _is_of(kind, item, job_name):
                        changes.put(Change(kind, item["metadata"]["name"], item))
            if not self._reflectors:
                self._start()
            elif value not in self._selected:
                selector = self._selector()
                for reflector in self._reflectors.values():
                    reflector.select(selector)
        return changes

    def unsubscribe(self, job_name: str, value: str, changes: "queue.Queue[Change]") -> None:
        """As `Observer.unsubscribe`."""
        with self._lock:
            self._queues[job_name].remove(changes)
            if not self._queues[job_name]:
                del self._queues[job_name]
            self._values -= Counter([value])
            if not self._queues:
                self._end()

    def _selector(self) -> str:
        """The selector for all waiters.

        A value without waiters stays in it until the next subscription, which lists again anyway.
        """
        self._selected = frozenset(self._values)
        if len(self._selected) > VALUES:
            return self._label
        return f"{self._label} in ({','.join(sorted(self._selected))})"

    def _start(self) -> None:
        selector, stop = self._selector(), self._cluster.closing.child()
        self._reflectors = {
            kind: Reflector(
                self._cluster,
                kind,
                selector,
                partial(self._deliver, stop),
                died=partial(self._fail, stop),
                stop=stop,
            )
            for kind in KINDS
        }
        for kind, reflector in self._reflectors.items():
            self._cluster.start_thread(reflector.follow, f"watch-{kind}")

    def _end(self) -> None:
        for reflector in self._reflectors.values():
            reflector.stop.set()
        self._reflectors = {}

    def _fail(self, stop: Stop, error: Exception) -> None:
        """Send all waiters the error; the next subscription starts new watches."""
        with self._lock:
            if stop.is_set():
                return
            log.warning("the watches of %s ended: %s", self._label, error, exc_info=error)
            self._end()
            for changes in [changes for waiting in self._queues.values() for changes in waiting]:
                changes.put(Change("Error", "", error))

    def _deliver(self, stop: Stop, kind: str, change: str, item: Object) -> None:
        job, name = job_of(kind, item), item["metadata"]["name"]
        if job is None:
            log.debug("Pod %s has the label %s but no Job as its owner", name, self._label)
            return
        is_deleted = change == "DELETED"
        update = Change(kind, name, None, item) if is_deleted else Change(kind, name, item)
        with self._lock:
            if stop.is_set():
                return  # newer watches have delivered since
            for changes in self._queues.get(job.name, ()):
                changes.put(update)


def _is_of(kind: str, item: Object, job_name: str) -> bool:
    job = job_of(kind, item)
    return job is not None and job.name == job_name
