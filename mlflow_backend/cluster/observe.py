"""One watch on the pods and one on the Jobs of this client, however many runs it waits for."""

import json
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mlflow_backend.cluster.api import CONNECT_TIMEOUT_S, Cluster
from mlflow_backend.cluster.manifest import LABEL_CLIENT, LABEL_RUN
from mlflow_backend.errors import ClusterError

WATCH_S = 300
"""The API server ends a watch after this time; it is then taken up where it stopped."""
MAX_BACKOFF_S = 30


class Change(NamedTuple):
    """`value` is the object as it is now, or None when it is gone. `kind`: Pod or Job."""

    kind: str
    value: Mapping[str, Any] | None


class Observer:
    """Delivers the changes of this client's pods and Jobs to whoever waits for their run."""

    def __init__(self, cluster: Cluster, client: str):
        self._cluster = cluster
        self._selector = f"{LABEL_CLIENT}={client}"
        self._lock = threading.Lock()
        self._queues: dict[str, list[queue.Queue]] = defaultdict(list)
        self._objects: dict[str, dict[str, Mapping[str, Any]]] = {"Pod": {}, "Job": {}}
        self._started = False

    def subscribe(self, run_id: str) -> "queue.Queue[Any]":
        """A queue that gets what is known of the run at once, then every Change."""
        changes: queue.Queue[Any] = queue.Queue()
        with self._lock:
            self._queues[run_id].append(changes)
            for kind, objects in self._objects.items():
                for item in objects.values():
                    if _run_of(item) == run_id:
                        changes.put(Change(kind, item))
            if not self._started:
                self._started = True
                core, batch = self._cluster.core, self._cluster.batch
                for kind, call in (("Pod", core.list_namespaced_pod), ("Job", batch.list_namespaced_job)):
                    threading.Thread(target=self._follow, args=(kind, call), daemon=True, name=f"watch-{kind}").start()
        return changes

    def unsubscribe(self, run_id: str, changes: "queue.Queue[Any]") -> None:
        with self._lock:
            self._queues[run_id].remove(changes)
            if not self._queues[run_id]:
                del self._queues[run_id]

    def _follow(self, kind: str, call: Callable) -> None:
        import tenacity

        again = tenacity.Retrying(
            wait=tenacity.wait_random_exponential(max=MAX_BACKOFF_S), retry=tenacity.retry_if_exception_type(ClusterError)
        )
        while True:
            version = again(self._list, kind, call)
            while version:
                version = self._watch(kind, call, version)

    def _list(self, kind, call) -> str:
        with self._cluster._errors(f"list {kind}s"):
            listing = self._cluster._json(call(self._cluster.namespace, label_selector=self._selector, **self._cluster._raw()))
        present = {item["metadata"]["uid"]: item for item in listing["items"]}
        for uid, item in list(self._objects[kind].items()):
            if uid not in present:
                self._deliver(kind, "DELETED", item)
        for item in present.values():
            self._deliver(kind, "ADDED", item)
        return listing["metadata"]["resourceVersion"]

    def _watch(self, kind, call, version) -> str | None:
        """Follow the changes after `version`; the version to go on from, or None to list anew (410 Gone, a broken connection)."""
        try:
            with self._cluster._errors(f"watch {kind}s"):
                response = call(
                    self._cluster.namespace, label_selector=self._selector, watch=True, resource_version=version,
                    allow_watch_bookmarks=True, timeout_seconds=WATCH_S, _preload_content=False,
                    _request_timeout=(CONNECT_TIMEOUT_S, WATCH_S + CONNECT_TIMEOUT_S),
                )  # fmt: skip
                for line in _json_lines(response):
                    if line["type"] == "ERROR":
                        return None
                    version = line["object"]["metadata"]["resourceVersion"]
                    if line["type"] != "BOOKMARK":
                        self._deliver(kind, line["type"], line["object"])
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
            for changes in self._queues.get(_run_of(item), ()):
                changes.put(Change(kind, None if change == "DELETED" else item))


def _run_of(item) -> str:
    return item["metadata"]["labels"][LABEL_RUN]


def _json_lines(response):
    rest = b""
    for block in response.stream(65536, decode_content=False):
        *lines, rest = (rest + block).split(b"\n")
        yield from (json.loads(line) for line in lines if line)
