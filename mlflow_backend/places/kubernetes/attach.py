"""Find a run's Job again from what MLflow knows: its tags name cluster, context, namespace and
Job.
"""

from typing import Any

from mlflow_backend.errors import ClusterError, UnknownCluster
from mlflow_backend.places.kubernetes import runs, settle
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.connect import connect
from mlflow_backend.places.kubernetes.client.observe import Observer
from mlflow_backend.places.kubernetes.log import mark_of
from mlflow_backend.places.kubernetes.look import is_active, look, look_for
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.places.kubernetes.ownership import claim_of
from mlflow_backend.places.kubernetes.submitted_job import SubmittedJob
from mlflow_backend.progress import Progress
from mlflow_runner.contract.tags import TAG_CLUSTER, TAG_CONTEXT, TAG_NAMESPACE

GRACE_PERIOD_S = 30.0


def attach(run: Any, stream: bool, progress: Progress) -> SubmittedJob:
    """The run (an mlflow.entities.Run) as its submitter has it, to wait for or cancel.

    Raises ClusterError.
    """
    cluster, record = cluster_of(run), runs.record_of(run)
    claim = claim_of(record)
    if claim is None:
        raise ClusterError(
            f"run {record.run_id}: its tags name no cluster that it was sent to", code="NotFound"
        )
    seen = look_for(cluster, record.run_id, claim)
    job = seen.job or seen.stray or {}
    pod = job.get("spec", {}).get("template", {}).get("spec", {})
    grace_s = float(pod.get("terminationGracePeriodSeconds", GRACE_PERIOD_S))
    observer = Observer(cluster, labels.RUN, record.run_id)
    return SubmittedJob(
        cluster,
        observer,
        claim,
        record.run_id,
        mark_of(job),
        stream,
        grace_s,
        settle.start_timeout_s(job),
        progress,
    )


def settle_now(run: Any) -> bool:
    """Bring the run (an mlflow.entities.Run) in line with its Job as it is now; True if it has
    ended. Raises ClusterError.

    Of a run that has its end already, a Job that still holds something is deleted.
    """
    record = runs.record_of(run)
    cluster = cluster_of(run)
    return settle.settle(runs.ClientRuns(), cluster, record, look(cluster, record)).ended


def has_active_job(run: Any) -> bool:
    """Whether the run's own Job is there and may still run something. Raises ClusterError."""
    seen = look(cluster_of(run), runs.record_of(run))
    return is_active(seen.job or seen.stray)


def cluster_of(run: Any) -> Cluster:
    """The namespace that the run was sent to.

    Raises ClusterError where nothing proves that it is reached from here.
    """
    tags, run_id = run.data.tags, run.info.run_id
    if not tags.get(TAG_CLUSTER):
        raise UnknownCluster(
            f"run {run_id}: does not say which cluster it was sent to (tag {TAG_CLUSTER}): its Job "
            "is left alone"
        )
    cluster = connect(tags.get(TAG_CONTEXT), tags.get(TAG_NAMESPACE))
    where = f"context {cluster.context}, namespace {cluster.namespace}"
    identity = cluster.identity()
    if identity is None:
        raise ClusterError(
            f"{where}: its uid cannot be read, so whether run {run_id} was sent there is unknown",
            code="ClusterForbidden",
            hint="ask an administrator for the right to get the namespace",
        )
    if identity != tags[TAG_CLUSTER]:
        raise UnknownCluster(
            f"{where}: is not the cluster that run {run_id} was sent to: use the kubeconfig that "
            "it was submitted with"
        )
    return cluster
