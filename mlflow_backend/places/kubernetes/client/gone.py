"""Wait until the pods of a deleted Job have gone."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.reflector import job_of

PAUSE_S = 1.0
"""Between two lists: a proxy may end every watch at once."""


def pods_are_gone(
    cluster: Cluster,
    selector: str,
    job_uid: str,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Wait until the Job has no pod any more, for at most `timeout_s` seconds; whether it has none.
    `selector` finds its pods, and may find more.

    Raises ClusterError.
    """
    deadline = clock() + timeout_s
    while (left_s := deadline - clock()) > 0:
        pods, version = cluster.list_objects(
            "Pod", selector, lambda pod: pod["metadata"]["uid"] if _is_of(pod, job_uid) else None
        )
        if _watch(cluster, selector, version, set(filter(None, pods)), max(1, int(left_s))):
            return True
        cluster.connection.sleep(PAUSE_S)
    return False


def _watch(cluster: Cluster, selector: str, version: str, there: set[str], timeout_s: int) -> bool:
    """Whether the last of the pods (uids) has gone before the watch ended."""
    if not there:
        return True
    for event in cluster.watch_objects("Pod", selector, version, timeout_s):
        if event["type"] == "ERROR":
            return False
        if event["type"] == "DELETED":
            there.discard(event["object"]["metadata"]["uid"])
        if not there:
            return True
    return False


def _is_of(pod: Mapping[str, Any], job_uid: str) -> bool:
    job = job_of("Pod", pod)
    return job is not None and job.uid == job_uid
