"""Watches that are shared: one on the pods and one on the Jobs of a namespace, however many runs a
process waits for.

What follows the consumer (wait.py) must know: a watch that cannot go on ends for all its waiters.
Each of their queues then gets `Change("Error", "", error)`, once, with the exception as `value`: a
ClusterError that repeating does not help (403, a login that is over), or a defect. Nothing follows
it, and the consumer raises it. A server that does not answer now is no such error: the watch takes
it up again by itself.
"""

import logging
import queue
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.reflector import Reflector, job_of
from mlflow_backend.places.kubernetes.client.streams import Stop

log = logging.getLogger(__name__)

KINDS = ("Pod", "Job")
VALUES = 100
"""A selector that names more values is longer than proxies take: then all objects that have the
label are watched.
"""


class Change(NamedTuple):
    """`value` is the Pod or Job (`kind`) of this name as it is now, or None when it is gone; `last`
    is how it was then.

    Of kind `Error`, `value` is the exception that has ended the watch.
    """

    kind: str
    name: str
    value: Any
    last: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Observer:
    """The way to the changes of Jobs that have the label `label=value`, and of their pods.

    Cheap; all of a label share two watches.
    """

    cluster: Cluster
    label: str
    value: str

    def subscribe(self, job_name: str) -> "queue.Queue[Change]":
        """A queue that gets what is known of the Job and its pods at once, then every Change (one
        of them perhaps twice).
        """
        return self._watch.subscribe(job_name, self.value)

    def unsubscribe(self, job_name: str, changes: "queue.Queue[Change]") -> None:
        """The watches end with the last waiter."""
        self._watch.unsubscribe(job_name, self.value, changes)

    @property
    def _watch(self) -> "SharedWatch":
        return self.cluster.watches.setdefault(self.label, SharedWatch(self.cluster, self.label))


class SharedWatch:
    """The two watches of a label, and who waits for what. They run while anyone does."""

    def __init__(self, cluster: Cluster, label: str):
        self._cluster, self._label = cluster, label
        self._lock = threading.Lock()
        self._queues: dict[str, list[queue.Queue[Change]]] = {}
        self._values: Counter[str] = Counter()
        self._selected: frozenset[str] = frozenset()
        self._reflectors: dict[str, Reflector] = {}

    def subscribe(self, job_name: str, value: str) -> "queue.Queue[Change]":
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
        with self._lock:
            self._queues[job_name].remove(changes)
            if not self._queues[job_name]:
                del self._queues[job_name]
            self._values -= Counter([value])
            if not self._queues:
                self._end()

    def _selector(self) -> str:
        """For all that is waited for.

        Who leaves is still in it until the next one comes: that is cheaper than to list again.
        """
        self._selected = frozenset(self._values)
        return (
            self._label
            if len(self._selected) > VALUES
            else (f"{self._label} in ({','.join(sorted(self._selected))})")
        )

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
            self._cluster.run_beside(reflector.follow, f"watch-{kind}")

    def _end(self) -> None:
        for reflector in self._reflectors.values():
            reflector.stop.set()
        self._reflectors = {}

    def _fail(self, stop: Stop, error: Exception) -> None:
        """Tell all waiters that nothing will come any more; the next one who comes starts new
        watches.
        """
        with self._lock:
            if stop.is_set():
                return
            log.warning("the watches of %s have ended: %s", self._label, error, exc_info=error)
            self._end()
            for changes in [changes for waiting in self._queues.values() for changes in waiting]:
                changes.put(Change("Error", "", error))

    def _deliver(self, stop: Stop, kind: str, change: str, item: Mapping[str, Any]) -> None:
        job = job_of(kind, item)
        if job is None:
            log.debug("Pod %s has our labels, and no Job has made it", item["metadata"]["name"])
            return
        gone = change == "DELETED"
        with self._lock:
            if stop.is_set():
                return  # what the next watches have told since is newer
            for changes in self._queues.get(job.name, ()):
                changes.put(
                    Change(
                        kind,
                        item["metadata"]["name"],
                        None if gone else item,
                        item if gone else None,
                    )
                )


def _is_of(kind: str, item: Mapping[str, Any], job_name: str) -> bool:
    job = job_of(kind, item)
    return job is not None and job.name == job_name
