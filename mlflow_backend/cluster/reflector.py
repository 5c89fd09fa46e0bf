"""List and watch one kind of object: what there is, then every change, for as long as the process lives."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_backend.cluster.api import Cluster
from mlflow_backend.errors import ClusterError

WATCH_S = 300
"""The API server ends a watch after this time; it is then taken up where it stopped."""
MAX_BACKOFF_S = 30

Deliver = Callable[[str, str, Mapping[str, Any]], None]
"""Called with the kind, ADDED, MODIFIED or DELETED, and the object as it is now, or was at last."""


class Reflector:
    """The objects of a kind (Pod, Job) with the labels `selector`, kept up to date: `items` by uid, without what nobody reads.

    Those that are over are delivered once, when they have become so, and not kept.
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
    ):
        self.items: dict[str, Mapping[str, Any]] = {}
        self._cluster, self._kind, self._selector = cluster, kind, selector
        self._deliver, self._listed, self._is_over = deliver, listed, is_over
        self._failed = failed

    def follow(self) -> None:
        """Returns when the cluster is closed. `listed` is called after each complete list: what is missing then is gone for certain.

        `failed` is called with the kind and the error of each list that fails and will be repeated.
        """
        import tenacity

        closing = self._cluster.closing
        again = tenacity.Retrying(
            wait=tenacity.wait_random_exponential(max=MAX_BACKOFF_S),
            retry=tenacity.retry_if_exception_type(ClusterError),
            sleep=tenacity.sleep_using_event(closing),
            stop=tenacity.stop_when_event_set(closing),
            before_sleep=lambda state: self._failed(self._kind, state.outcome.exception()),
            reraise=True,
        )
        with contextlib.suppress(ClusterError):
            while not closing.is_set():
                version = again(self._list)
                while version and not closing.is_set():
                    version = self._watch(version)

    def _list(self) -> str:
        items, version = self._cluster.list_objects(self._kind, self._selector, self._kept)
        present = {item["metadata"]["uid"]: item for item in items if item}
        for uid, item in list(self.items.items()):
            if uid not in present:
                self._change("DELETED", item)
        for item in present.values():
            self._change("ADDED", item)
        self._listed(self._kind)
        return version

    def _watch(self, version: str) -> str | None:
        """Follow the changes after `version`; the version to go on from, or None to list anew (410 Gone, a broken connection)."""
        try:
            for event in self._cluster.watch_objects(self._kind, self._selector, version, WATCH_S):
                if event["type"] == "ERROR":
                    return None
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._change(event["type"], slim(event["object"]))
        except (ClusterError, ValueError, KeyError):  # or an answer that is none
            return None
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
    """The object without its bulk: field managers, and the variables of its containers, which carry the Submission."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    spec = dict(item.get("spec", {}))
    spec.pop("template", None)
    spec.pop("volumes", None)
    if "containers" in spec:
        kept = ("name", "image", "resources")
        spec["containers"] = [{key: part[key] for key in kept if key in part} for part in spec["containers"]]
    return {**item, "metadata": metadata, "spec": spec}


def job_of(kind: str, item: Mapping[str, Any]) -> str:
    """The name of the Job that a Job or a pod of one belongs to."""
    return item["metadata"]["name"] if kind == "Job" else item["metadata"]["labels"]["batch.kubernetes.io/job-name"]
