"""Show what a run prints while it runs, and change nothing, neither in MLflow nor in the
cluster.
"""

from collections.abc import Callable

from mlflow_backend.errors import ClusterUnavailable
from mlflow_backend.places.kubernetes import diagnose
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.log import PodLog, end_line, mark_of
from mlflow_backend.places.kubernetes.look import is_active, look
from mlflow_backend.supervision.record import RunRecord

LOOK_EVERY_S = 2.0


def follow(cluster: Cluster, run: RunRecord, write: Callable[[bytes], None]) -> None:
    """Write the output of the run's pods, one after the other, until its Job has ended or is gone.

    An outage of the cluster is waited for once the run has been seen. Raises ClusterError.
    """
    logs: dict[str, PodLog] = {}
    seen = look(cluster, run)
    while True:
        pod = seen.pod
        # a sidecar may keep Job and pod
        has_ended = diagnose.ended(seen.job, pod, seen.events) is not None
        is_over = has_ended or (not is_active(seen.job) and (pod is None or diagnose.is_over(pod)))
        try:
            if pod is not None and diagnose.has_started(pod):
                name = pod["metadata"]["name"]
                log = logs.setdefault(name, PodLog(end_line(run.run_id, mark_of(seen.job))))
                for line in cluster.follow_log(name, log.since_s(cluster.now_s())):
                    write(log.take(line)[0])
            if is_over:
                return
            cluster.closing.wait(LOOK_EVERY_S)
            seen = look(cluster, run)
        except ClusterUnavailable:
            cluster.closing.wait(LOOK_EVERY_S)
