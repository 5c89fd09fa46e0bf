"""List and watch one kind of object: what exists, then every change."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from mlflow_backend.errors import ClusterError, ClusterUnavailable
from mlflow_backend.places.kubernetes.client.answers import Object
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.streams import Stop

if TYPE_CHECKING:
    import tenacity

log = logging.getLogger(__name__)

WATCH_S = 300
"""The API server ends a watch after this time; the next one continues where it ended."""
LIVED_S = 10
"""A watch that ended sooner counts as failed, however it ended: a proxy may close every one at
once.
"""
MAX_BACKOFF_S = 30
CONTAINER_KEYS = ("name", "image", "resources")
"""What `slim` leaves of a container's spec."""

Deliver: TypeAlias = Callable[[str, str, Object], None]
"""Called with the kind, ADDED, MODIFIED or DELETED, and the object's current or last state."""


class Reflector:
    """A cache of the objects of a kind (Pod, Job) with the labels `selector`: `items` by uid,
    without the fields that are never read.

    An object for which `is_over` becomes true is delivered once and leaves the cache. `listed` is
    called with the kind after each complete list: what is missing then does not exist; `failed`
    with the kind and the error of each list or watch that fails and after which everything is
    listed again.

    `died` is called with the error that ends the reflector: a ClusterError that repeating does not
    help, or a defect. Without `died` such a ClusterError is retried too (a controller may be
    granted its Role later), and a defect ends the thread.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: str,
        selector: str,
        deliver: Deliver,
        listed: Callable[[str], None] = lambda kind: None,
        is_over: Callable[[Object], bool] = lambda item: False,
        failed: Callable[[str, BaseException], None] = lambda kind, error: None,
        died: Callable[[Exception], None] | None = None,
        stop: Stop | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.items: dict[str, Object] = {}
        self.stop = stop or cluster.closing.child()
        self._cluster, self._kind, self._selector = cluster, kind, selector
        self._deliver, self._listed, self._is_over = deliver, listed, is_over
        self._failed, self._died, self._clock = failed, died, clock
        # guards selector, version and watch together
        self._lock = threading.Lock()
        self._version: str | None = None
        self._watching = self.stop.child()

    def follow(self) -> None:
        """List and watch until the cluster is closed or `stop` is set, with exponential back-off
        between failures.
        """
        try:
            while not self.stop.is_set():
                self._retrying()(self._round)
        except Exception as error:
            if self.stop.is_set():
                return
            if self._died is None:
                raise
            self._died(error)

    def select(self, selector: str) -> None:
        """Follow the objects with these labels instead: everything is listed again, and what is
        not selected is delivered as DELETED.
        """
        with self._lock:
            self._selector, self._version = selector, None
            self._watching.set()

    def _retrying(self) -> "tenacity.Retrying":
        """One back-off, which ends with a successful round."""
        import tenacity

        retried = ClusterUnavailable if self._died else ClusterError
        return tenacity.Retrying(
            # the random part spreads many clients
            wait=tenacity.wait_exponential(min=1, max=MAX_BACKOFF_S) + tenacity.wait_random(0, 1),
            retry=tenacity.retry_if_exception_type(retried),
            sleep=self._sleep,
            stop=lambda _: self.stop.is_set(),
            before_sleep=self._report,
            reraise=True,
        )

    def _sleep(self, delay_s: float) -> None:
        self.stop.wait(delay_s)

    def _report(self, state: "tenacity.RetryCallState") -> None:
        error = state.outcome.exception() if state.outcome else None
        log.info("%ss: retrying in %.1f s: %s", self._kind, state.upcoming_sleep, error)
        if self._version is None and error:
            self._failed(self._kind, error)

    def _round(self) -> None:
        """One watch, after a list unless the last watch ended normally.

        Raises ClusterUnavailable if it ended sooner than LIVED_S.
        """
        if self.stop.is_set():
            return
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
                version = self._apply(event)
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
        items, version = self._cluster.list_objects(self._kind, selector, self._reduce)
        present = {item["metadata"]["uid"]: item for item in items if item}
        for uid, item in list(self.items.items()):
            if uid not in present:
                self._change("DELETED", item)
        for item in present.values():
            self._change("ADDED", item)
        self._listed(self._kind)
        return version

    def _apply(self, event: Object) -> str:
        """Deliver a watch event; the resourceVersion after it.

        Raises ClusterUnavailable for ERROR, as 410 Gone, after which everything is listed again.
        """
        try:
            change, item = event["type"], event["object"]
            if change == "ERROR":
                raise ClusterUnavailable(
                    f"the watch failed: {item.get('message') or item.get('reason')}"
                )
            version = str(item["metadata"]["resourceVersion"])
        except (AttributeError, KeyError, TypeError):
            raise ClusterUnavailable("the watch sent an invalid event") from None
        if change != "BOOKMARK":
            self._change(change, slim(item))
        return version

    def _reduce(self, item: Object) -> Object | None:
        """The object of a list as it is cached; None for one that was over before."""
        item = slim(item)
        return None if self._is_over(item) and item["metadata"]["uid"] not in self.items else item

    def _change(self, change: str, item: Object) -> None:
        if change == "DELETED" or self._is_over(item):
            self.items.pop(item["metadata"]["uid"], None)
        else:
            self.items[item["metadata"]["uid"]] = item
        self._deliver(self._kind, change, item)


def slim(item: Object) -> dict[str, Any]:
    """The object without its large fields: managedFields, and the variables and files of its
    containers.
    """
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    spec = dict(item.get("spec", {}))
    spec.pop("template", None)
    spec.pop("volumes", None)
    if "containers" in spec:
        spec["containers"] = [
            {key: container[key] for key in CONTAINER_KEYS if key in container}
            for container in spec["containers"]
        ]
    return {**item, "metadata": metadata, "spec": spec}


class JobRef(NamedTuple):
    """One Job; its uid tells it from an earlier one of the same name."""

    name: str
    uid: str


def job_of(kind: str, item: Object) -> JobRef | None:
    """The Job itself, or the Job that controls a pod; None for a pod without one.

    A pod's owner is read from ownerReferences, which Kubernetes maintains: labels differ between
    its versions, and anyone may set them.
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
