"""Find a run's Job again from what MLflow knows: its tags name cluster, context, namespace and Job."""

from typing import Any

from mlflow_backend.cluster import labels, runs, settle
from mlflow_backend.cluster.api import Cluster, connect
from mlflow_backend.cluster.observe import Observer
from mlflow_backend.cluster.wait import SubmittedJob
from mlflow_backend.errors import ClusterError
from mlflow_backend.progress import Progress
from mlflow_runner.submission import TAG_CLUSTER, TAG_CONTEXT, TAG_JOB, TAG_NAMESPACE

GRACE_PERIOD_S = 30.0


def attach(run: Any, stream: bool, progress: Progress) -> SubmittedJob:
    """The run as its submitter has it, to wait for or cancel. Raises ClusterError."""
    cluster = _cluster(run)
    job_name = run.data.tags[TAG_JOB]
    job = cluster.read_job(job_name) or {}
    pod = job.get("spec", {}).get("template", {}).get("spec", {})
    grace_s = float(pod.get("terminationGracePeriodSeconds", GRACE_PERIOD_S))
    observer = Observer(cluster, labels.RUN, run.info.run_id)
    return SubmittedJob(cluster, observer, job_name, run.info.run_id, stream, grace_s, settle.start_timeout_s(job), progress)


def settle_now(run: Any) -> bool:
    """Bring the run in line with its Job as it is now; True if it has ended. Raises ClusterError."""
    known = runs.known(run)
    if settle.has_ended(known):
        return True
    cluster = _cluster(run)
    return settle.settle(runs.ClientRuns(), cluster, known, settle.look(cluster, known.run_id, run.data.tags[TAG_JOB])).ended


def _cluster(run: Any) -> Cluster:
    """Raises ClusterError when the context of that name is another cluster here than where the run was sent."""
    tags = run.data.tags
    cluster = connect(tags.get(TAG_CONTEXT), tags.get(TAG_NAMESPACE))
    expected = tags.get(TAG_CLUSTER)
    if expected and cluster.identity() not in (None, expected):
        raise ClusterError(
            f"context {cluster.context}, namespace {cluster.namespace}: is not the cluster that run {run.info.run_id} was sent to: "
            "use the kubeconfig that it was submitted with"
        )
    return cluster
