"""Wait until a deleted Job has no pods."""

import time
from collections.abc import Callable

from mlflow_backend.places.kubernetes.client.answers import Object
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.reflector import job_of

PAUSE_S = 1.0
"""Between two lists: a proxy may close every watch at once."""


def pods_are_gone(
    cluster: Cluster,
    selector: str,
    job_uid: str,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Wait until the Job has no pods, for at most `timeout_s` seconds; whether it has none.
    `selector` matches its pods, and may match others.

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


def _watch(cluster: Cluster, selector: str, version: str, left: set[str], timeout_s: int) -> bool:
    """Whether the last of the pods `left` (uids) is deleted before the watch ends."""
    if not left:
        return True
    for event in cluster.watch_objects("Pod", selector, version, timeout_s):
        if event["type"] == "ERROR":
            return False
        if event["type"] == "DELETED":
            left.discard(event["object"]["metadata"]["uid"])
        if not left:
            return True
    return False


def _is_of(pod: Object, job_uid: str) -> bool:
    job = job_of("Pod", pod)
    return job is not None and job.uid == job_uid
