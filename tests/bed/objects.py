"""Jobs and pods as the API server shows them, and a namespace in memory that holds them."""

import itertools
import time
from collections import Counter
from datetime import datetime, timezone

from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes.client.streams import Stop

VERSIONS = itertools.count(1)


def stamp(ago_s: float = 0.0) -> str:
    return datetime.fromtimestamp(time.time() - ago_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(
    name: str, run_id: str, uid: str | None = None, age_s: float = 3600.0, labels=None, **status
) -> dict:
    """A Job with our labels, an hour old."""
    labels = {
        "app.kubernetes.io/managed-by": "mlflow-compute",
        "mlflow-compute/run-id": run_id,
        **(labels or {}),
    }
    metadata = {
        "name": name,
        "uid": uid or f"uid-of-{name}",
        "labels": labels,
        "creationTimestamp": stamp(age_s),
    }
    return {
        "metadata": {**metadata, "resourceVersion": str(next(VERSIONS))},
        "spec": {},
        "status": status,
    }


def failed(item: dict, message: str = "failed with exit code 3") -> dict:
    """The Job after its pod has failed, as podFailurePolicy puts it."""
    condition = {
        "type": "Failed",
        "status": "True",
        "reason": "PodFailurePolicy",
        "message": message,
        "lastTransitionTime": stamp(),
    }
    metadata = {**item["metadata"], "resourceVersion": str(next(VERSIONS))}
    return {**item, "metadata": metadata, "status": {"conditions": [condition]}}


def pod(
    owner: dict,
    phase: str = "Running",
    message: str | None = None,
    exit_code: int = 1,
    owned: bool = True,
) -> dict:
    """A pod of the Job; `message` is its termination message."""
    names = owner["metadata"]
    owners = (
        [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": names["name"],
                "uid": names["uid"],
                "controller": True,
            }
        ]
        if owned
        else []
    )
    metadata = {
        "name": f"{names['name']}-x",
        "uid": f"pod-of-{names['uid']}",
        "labels": dict(names["labels"]),
        "ownerReferences": owners,
    }
    state = (
        {"running": {}}
        if phase == "Running"
        else {"terminated": {"exitCode": exit_code, "finishedAt": stamp(), "message": message}}
    )
    return {
        "metadata": {
            **metadata,
            "creationTimestamp": stamp(3000),
            "resourceVersion": str(next(VERSIONS)),
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "run", "image": "i"}]},
        "status": {"phase": phase, "containerStatuses": [{"name": "run", "state": state}]},
    }


class MemoryNamespace:
    """A namespace with the methods of `Cluster` that a controller calls. `deleted` holds (name,
    uid) of the Jobs it deleted.

    `refusal`: what every call raises.
    """

    def __init__(self, namespace: str = "n", uid: str | None = "uid-of-n"):
        self.namespace, self._uid = namespace, uid
        self.jobs: dict[str, dict] = {}
        self.pods: list[dict] = []
        self.deleted: list[tuple[str, str]] = []
        self.released: list[tuple[str, str, bool]] = []
        self.refusal: ClusterError | None = None
        self.calls: Counter[str] = Counter()
        self.closing = Stop()
        self.on_call = lambda what: None

    def add(self, *items: dict) -> None:
        """Jobs, and pods (which have a phase)."""
        for item in items:
            if "phase" in item["status"]:
                self.pods.append(item)
            else:
                self.jobs[item["metadata"]["name"]] = item

    def identity(self) -> str | None:
        self._called("get Namespace")
        return self._uid

    def now_s(self) -> float:
        return time.time()

    def read_job(self, name):
        self._called("get Job")
        return self.jobs.get(name)

    def list_objects(self, kind, selector, keep=lambda item: item):
        self._called(f"list {kind}s")
        wanted = dict(part.split("=") for part in selector.split(","))
        items = self.pods if kind == "Pod" else self.jobs.values()
        found = [
            item
            for item in items
            if all(item["metadata"]["labels"].get(key) == value for key, value in wanted.items())
        ]
        return [keep(item) for item in found], "1"

    def watch_objects(self, kind, selector, version, timeout_s, stop):
        stop.wait(timeout_s)
        return iter(())

    def list_events(self, kind, name):
        return []

    def list_nodes(self, keep):
        return []

    def delete_job(self, name, uid):
        self._called("delete Job")
        self.deleted.append((name, uid))
        if name in self.jobs and self.jobs[name]["metadata"]["uid"] == uid:
            del self.jobs[name]

    def release_pod(self, name, uid, by_force):
        self._called("delete Pod")
        self.released.append((name, uid, by_force))

    def _called(self, what: str) -> None:
        self.calls[what] += 1
        if self.refusal:
            raise self.refusal
