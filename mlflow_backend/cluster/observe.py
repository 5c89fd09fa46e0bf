"""One watch on the pods and one on the Jobs of this client, however many runs it waits for."""

import queue
import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from mlflow_backend.cluster.api import Cluster
from mlflow_backend.errors import ClusterError

WATCH_S = 300
"""The API server ends a watch after this time; it is then taken up where it stopped."""
MAX_BACKOFF_S = 30


class Change(NamedTuple):
    """`value` is the Pod or Job (`kind`) of this name as it is now, or None when it is gone."""

    kind: str
    name: str
    value: Mapping[str, Any] | None


class Observer:
    """Delivers the changes of the Jobs with the labels `selector`, and of their pods, to whoever waits for one."""

    def __init__(self, cluster: Cluster, selector: str):
        self._cluster = cluster
        self._selector = selector
        self._lock = threading.Lock()
        self._queues: dict[str, list[queue.Queue]] = defaultdict(list)
        self._objects: dict[str, dict[str, Mapping[str, Any]]] = {"Pod": {}, "Job": {}}
        self._started = False

    def subscribe(self, job_name: str) -> "queue.Queue[Any]":
        """A queue that gets what is known of the Job and its pods at once, then every Change."""
        changes: queue.Queue[Any] = queue.Queue()
        with self._lock:
            self._queues[job_name].append(changes)
            for kind, objects in self._objects.items():
                for item in objects.values():
                    if _job_of(kind, item) == job_name:
                        changes.put(Change(kind, item["metadata"]["name"], item))
            if not self._started:
                self._started = True
                for kind in self._objects:
                    threading.Thread(target=self._follow, args=(kind,), daemon=True, name=f"watch-{kind}").start()
        return changes

    def unsubscribe(self, job_name: str, changes: "queue.Queue[Any]") -> None:
        with self._lock:
            self._queues[job_name].remove(changes)
            if not self._queues[job_name]:
                del self._queues[job_name]

    def _follow(self, kind: str) -> None:
        import tenacity

        again = tenacity.Retrying(
            wait=tenacity.wait_random_exponential(max=MAX_BACKOFF_S), retry=tenacity.retry_if_exception_type(ClusterError)
        )
        while True:
            version = again(self._list, kind)
            while version:
                version = self._watch(kind, version)

    def _list(self, kind) -> str:
        items, version = self._cluster.list_objects(kind, self._selector)
        present = {item["metadata"]["uid"]: item for item in items}
        for uid, item in list(self._objects[kind].items()):
            if uid not in present:
                self._deliver(kind, "DELETED", item)
        for item in present.values():
            self._deliver(kind, "ADDED", item)
        return version

    def _watch(self, kind, version) -> str | None:
        """Follow the changes after `version`; the version to go on from, or None to list anew (410 Gone, a broken connection)."""
        try:
            for event in self._cluster.watch_objects(kind, self._selector, version, WATCH_S):
                if event["type"] == "ERROR":
                    return None
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._deliver(kind, event["type"], event["object"])
        except ClusterError:
            return None
        return version

    def _deliver(self, kind, change, item) -> None:
        with self._lock:
            uid = item["metadata"]["uid"]
            if change == "DELETED":
                self._objects[kind].pop(uid, None)
            else:
                self._objects[kind][uid] = item
            for changes in self._queues.get(_job_of(kind, item), ()):
                changes.put(Change(kind, item["metadata"]["name"], None if change == "DELETED" else item))


def _job_of(kind, item) -> str:
    return item["metadata"]["name"] if kind == "Job" else item["metadata"]["labels"]["batch.kubernetes.io/job-name"]
