"""One watch on the pods and one on the Jobs of this client, however many runs it waits for."""

import queue
import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from mlflow_backend.cluster.api import Cluster
from mlflow_backend.cluster.reflector import Reflector, job_of


class Change(NamedTuple):
    """`value` is the Pod or Job (`kind`) of this name as it is now, or None when it is gone; `last` is how it was then."""

    kind: str
    name: str
    value: Mapping[str, Any] | None
    last: Mapping[str, Any] | None = None


class Observer:
    """Delivers the changes of the Jobs with the labels `selector`, and of their pods, to whoever waits for one."""

    def __init__(self, cluster: Cluster, selector: str):
        self._cluster = cluster
        self._lock = threading.Lock()
        self._queues: dict[str, list[queue.Queue]] = defaultdict(list)
        self._reflectors = {kind: Reflector(cluster, kind, selector, self._deliver) for kind in ("Pod", "Job")}
        self._started = False

    def subscribe(self, job_name: str) -> "queue.Queue[Any]":
        """A queue that gets what is known of the Job and its pods at once, then every Change (one of them perhaps twice)."""
        changes: queue.Queue[Any] = queue.Queue()
        with self._lock:
            self._queues[job_name].append(changes)
            for kind, reflector in self._reflectors.items():
                for item in list(reflector.items.values()):
                    if job_of(kind, item) == job_name:
                        changes.put(Change(kind, item["metadata"]["name"], item))
            if not self._started:
                self._started = True
                for kind, reflector in self._reflectors.items():
                    self._cluster.run_beside(reflector.follow, f"watch-{kind}")
        return changes

    def unsubscribe(self, job_name: str, changes: "queue.Queue[Any]") -> None:
        with self._lock:
            self._queues[job_name].remove(changes)
            if not self._queues[job_name]:
                del self._queues[job_name]

    def _deliver(self, kind, change, item) -> None:
        with self._lock:
            gone = change == "DELETED"
            for changes in self._queues.get(job_of(kind, item), ()):
                changes.put(Change(kind, item["metadata"]["name"], None if gone else item, item if gone else None))
