"""Show what a run prints while it runs, and change nothing, neither in MLflow nor in the cluster."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mlflow_backend.cluster import labels
from mlflow_backend.cluster.api import Cluster
from mlflow_backend.cluster.look import is_active, look
from mlflow_backend.cluster.ownership import Known
from mlflow_backend.errors import ClusterUnavailable

LOOK_EVERY_S = 2.0
STAMPED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(\S+) ?(.*)", re.DOTALL)
"""A line of a log as the kubelet gives it: RFC 3339 time, a space, the text. Lines of the kubelet's own have no time."""


def follow(cluster: Cluster, run: Known, write: Callable[[bytes], None]) -> None:
    """Write the output of the run's pods, one after the other, until its Job has ended or is gone.

    An outage of the cluster is waited for once the run has been seen. Raises ClusterError.
    """
    shown: dict[str, bytes] = {}
    seen = look(cluster, run)
    while True:
        pod = seen.pod
        is_over = not is_active(seen.job) and (pod is None or _phase(pod) in ("Succeeded", "Failed"))
        try:
            if pod is not None and _phase(pod) != "Pending":
                _show(cluster, pod["metadata"]["name"], shown, _end_line(run, seen.job), write)
            if is_over:
                return
            cluster.closing.wait(LOOK_EVERY_S)
            seen = look(cluster, run)
        except ClusterUnavailable:
            cluster.closing.wait(LOOK_EVERY_S)


def _show(cluster: Cluster, pod: str, shown: dict[str, bytes], end_line: bytes, write: Callable[[bytes], None]) -> None:
    """Write what follows the last line shown of this pod, until its log ends."""
    last = shown.get(pod)
    since_s = max(1.0, cluster.now_s() - _seconds(last) + 2.0) if last else None
    for line in cluster.follow_log(pod, since_s and int(since_s)):
        stamped = STAMPED.fullmatch(line)
        if stamped:
            stamp, line = line[: stamped.start(4)].rstrip(), stamped[4]
            if last and stamp <= last:
                continue
            shown[pod] = stamp
        if not (end_line and line.rstrip().endswith(end_line)):
            write(line)


def _end_line(run: Known, job: Mapping[str, Any] | None) -> bytes:
    """How the runner's last line ends; empty where the Job has no mark or is gone."""
    mark = ((job or {}).get("metadata", {}).get("annotations") or {}).get(labels.MARK)
    return f"run {run.run_id} has ended {mark}".encode() if mark else b""


def _seconds(stamp: bytes) -> float:
    """The kubelet's time as seconds since the epoch, its fraction cut off."""
    time, _, zone = STAMPED.fullmatch(stamp).groups()[:3]
    return datetime.fromisoformat(f"{time.decode()}{zone.decode().replace('Z', '+00:00')}").timestamp()


def _phase(pod: Mapping[str, Any]) -> str:
    return pod.get("status", {}).get("phase", "Pending")
