"""List and watch one kind of object: what there is, then every change."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mlflow_backend.errors import ClusterError, ClusterUnavailable
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.streams import Stop

log = logging.getLogger(__name__)

WATCH_S = 300
"""The API server ends a watch after this time; it is then taken up where it stopped."""
LIVED_S = 10
"""A watch that ended sooner counts as failed, however it ended: a proxy may close every one at
once.
"""
MAX_BACKOFF_S = 30

Deliver = Callable[[str, str, Mapping[str, Any]], None]
"""Called with the kind, ADDED, MODIFIED or DELETED, and the object as it is now, or was at last."""


class Reflector:
    """The objects of a kind (Pod, Job) with the labels `selector`, kept up to date: `items` by uid,
    without the fields that are never read.

    Those that are over are delivered once, when they have become so, and not kept. `listed` is
    called with the kind after each complete list: what is missing then is gone for certain;
    `failed` with the kind and the error of each list or watch that fails and after which everything
    is listed again.

    `died` is called with the error that ends it: one that repeating does not help, or a defect.
    Without it such a ClusterError is repeated as well (a controller outlives a Role that comes
    later), and a defect ends the thread.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: str,
        selector: str,
        deliver: Deliver,
        listed: Callable[[str], None] = lambda kind: None,
        is_over: Callable[[Mapping[str, Any]], bool] = lambda item: False,
        failed: Callable[[str, BaseException], None] = lambda kind, error: None,
        died: Callable[[Exception], None] | None = None,
        stop: Stop | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.items: dict[str, Mapping[str, Any]] = {}
        self.stop = stop or cluster.closing.child()
        self._cluster, self._kind, self._selector = cluster, kind, selector
        self._deliver, self._listed, self._is_over = deliver, listed, is_over
        self._failed, self._died, self._clock = failed, died, clock
        # held to set or take the selector, the version and the watch together
        self._lock = threading.Lock()
        self._version: str | None = None
        self._watching = self.stop.child()

    def follow(self) -> None:
        """List and watch until the cluster is closed or `stop` is set, with growing delays between
        failures.
        """
        try:
            while not self.stop.is_set():
                self._again()(self._round)
        except Exception as error:
            if self.stop.is_set():
                return
            if self._died is None:
                raise
            self._died(error)

    def select(self, selector: str) -> None:
        """Follow the objects with these labels from now on: everything is listed again, and what is
        not selected is delivered as DELETED.
        """
        with self._lock:
            self._selector, self._version = selector, None
            self._watching.set()

    def _again(self) -> Any:
        """One back-off, which a round that went well ends."""
        import tenacity

        repeated = ClusterUnavailable if self._died else ClusterError
        return tenacity.Retrying(
            # many clients at once
            wait=tenacity.wait_exponential(min=1, max=MAX_BACKOFF_S) + tenacity.wait_random(0, 1),
            retry=tenacity.retry_if_exception_type(repeated),
            sleep=self.stop.wait,
            stop=tenacity.stop_when_event_set(self.stop),
            before_sleep=self._tell,
            reraise=True,
        )

    def _tell(self, state: Any) -> None:
        error = state.outcome.exception()
        log.info("%ss: %s; again in %.1f s", self._kind, error, state.next_action.sleep)
        if self._version is None:
            self._failed(self._kind, error)

    def _round(self) -> None:
        """One watch, after a list unless the last one ended in order.

        Raises ClusterUnavailable if it ended sooner than LIVED_S.
        """
        if self.stop.is_set():
            return  # while it waited for the next attempt
        with self._lock:
            self._watching = watching = self.stop.child()
            selector, version = self._selector, self._version
        if version is None:
            version = self._list(selector)
        began, error = self._clock(), None
        try:
            for event in self._cluster.watch_objects(
                self._kind, selector, version, WATCH_S, watching
            ):
                version = self._take(event)
        except ClusterError as caught:
            version, error = None, caught
        with self._lock:
            if watching.is_set():
                return
            self._version = version
        if error and not isinstance(error, ClusterUnavailable):
            raise error
        if self._clock() - began < LIVED_S:
            raise error or ClusterUnavailable(f"the watch ended after less than {LIVED_S} s")

    def _list(self, selector: str) -> str:
        items, version = self._cluster.list_objects(self._kind, selector, self._kept)
        present = {item["metadata"]["uid"]: item for item in items if item}
        for uid, item in list(self.items.items()):
            if uid not in present:
                self._change("DELETED", item)
        for item in present.values():
            self._change("ADDED", item)
        self._listed(self._kind)
        return version

    def _take(self, event: Mapping[str, Any]) -> str:
        """The version after the event.

        Raises ClusterUnavailable for ERROR, as 410 Gone, after which all has to be listed again.
        """
        try:
            change, item = event["type"], event["object"]
            if change == "ERROR":
                raise ClusterUnavailable(
                    f"the watch failed: {item.get('message') or item.get('reason')}"
                )
            version = item["metadata"]["resourceVersion"]
        except (AttributeError, KeyError, TypeError):
            raise ClusterUnavailable("the watch sent something that is no event") from None
        if change != "BOOKMARK":
            self._change(change, slim(item))
        return version

    def _kept(self, item: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What is kept of an object in a list: nothing of one that was over before we looked."""
        item = slim(item)
        return None if self._is_over(item) and item["metadata"]["uid"] not in self.items else item

    def _change(self, change: str, item: Mapping[str, Any]) -> None:
        if change == "DELETED" or self._is_over(item):
            self.items.pop(item["metadata"]["uid"], None)
        else:
            self.items[item["metadata"]["uid"]] = item
        self._deliver(self._kind, change, item)


def slim(item: Mapping[str, Any]) -> dict[str, Any]:
    """The object without its bulk: field managers, and the variables and files of its
    containers.
    """
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    spec = dict(item.get("spec", {}))
    spec.pop("template", None)
    spec.pop("volumes", None)
    if "containers" in spec:
        kept = ("name", "image", "resources")
        spec["containers"] = [
            {key: part[key] for key in kept if key in part} for part in spec["containers"]
        ]
    return {**item, "metadata": metadata, "spec": spec}


class JobRef(NamedTuple):
    """One Job, and not another one that had its name before."""

    name: str
    uid: str


def job_of(kind: str, item: Mapping[str, Any]) -> JobRef | None:
    """The Job that a Job is, or that a pod is controlled by; None for a pod that no Job made.

    Pods are told by ownerReferences, which Kubernetes keeps: labels differ between its versions,
    and anyone may set them.
    """
    metadata = item["metadata"]
    if kind == "Job":
        return JobRef(metadata["name"], metadata["uid"])
    for owner in metadata.get("ownerReferences") or ():
        if (
            owner.get("controller")
            and owner["kind"] == "Job"
            and owner["apiVersion"].startswith("batch/")
        ):
            return JobRef(owner["name"], owner["uid"])
    return None
