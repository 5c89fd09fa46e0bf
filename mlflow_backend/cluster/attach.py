"""Find a run's Job again from what MLflow knows: its tags name context, namespace and Job."""

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from mlflow_backend.cluster import diagnose
from mlflow_backend.cluster.api import Cluster, connect
from mlflow_backend.cluster.diagnose import Diagnosis
from mlflow_backend.cluster.manifest import LABEL_RUN, START_TIMEOUT
from mlflow_backend.cluster.observe import Observer
from mlflow_backend.cluster.settle import TERMINAL, has_ended, settle, write
from mlflow_backend.cluster.wait import SubmittedJob
from mlflow_backend.errors import TrackingError
from mlflow_backend.progress import Progress
from mlflow_runner.causes import Cause
from mlflow_runner.submission import TAG_CAUSE, TAG_CONTEXT, TAG_JOB, TAG_NAMESPACE, TAG_NODE

SUBMIT_S = 60
"""A submit tags its run before it creates the Job: a run younger than this may have none yet."""
GRACE_PERIOD_S = 30.0
UNFINISHED = (
    "attributes.status = 'RUNNING'",
    "attributes.status = 'SCHEDULED'",
    f"attributes.status = 'KILLED' AND tags.`{TAG_CAUSE}` = '{Cause.TERMINATED}'",
)
"""What MLflow is asked for: the last are runs whose pod was stopped and whose Job has the last word."""
PAGE = 200


def run_of(run_id: str) -> Any:
    """The run (an mlflow.entities.Run). Raises TrackingError when there is none, or it is not of a cluster."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise TrackingError(f"run {run_id}: {str(error).splitlines()[0]}") from None
    if TAG_JOB not in run.data.tags:
        raise TrackingError(f"run {run_id}: was not sent to a cluster (it has no tag {TAG_JOB})")
    return run


def runs(experiments: Sequence[str] | None, unfinished: bool) -> Iterator[Any]:
    """The runs that were sent to a cluster, of these experiments (ids) or of all, the newest first."""
    from mlflow.entities import ViewType
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    ids = list(experiments or (item.experiment_id for item in client.search_experiments(view_type=ViewType.ACTIVE_ONLY)))
    for wanted in UNFINISHED if unfinished else ("",):
        token = None
        while ids:
            page = client.search_runs(ids, wanted, max_results=PAGE, order_by=["attributes.start_time DESC"], page_token=token)
            yield from (run for run in page if TAG_JOB in run.data.tags)
            token = page.token
            if not token:
                break


def attach(run: Any, stream: bool, progress: Progress) -> SubmittedJob:
    """The run as its submitter has it, to wait for or cancel."""
    cluster = _cluster(run)
    job_name = run.data.tags[TAG_JOB]
    job = cluster.read_job(job_name) or {}
    pod = job.get("spec", {}).get("template", {}).get("spec", {})
    grace_s = float(pod.get("terminationGracePeriodSeconds", GRACE_PERIOD_S))
    observer = _observer(cluster, run.info.run_id)
    return SubmittedJob(cluster, observer, job_name, run.info.run_id, stream, grace_s, _start_timeout_s(job), progress)


def settle_now(run: Any) -> bool:
    """Bring the run in line with its Job as it is now; True if it has ended. Raises ClusterError."""
    if has_ended(run):
        return True
    cluster = _cluster(run)
    job = cluster.read_job(run.data.tags[TAG_JOB])
    pods, _ = cluster.list_objects("Pod", f"{LABEL_RUN}={run.info.run_id},job-name={run.data.tags[TAG_JOB]}")
    pod = max(pods, key=lambda item: item["metadata"]["creationTimestamp"], default=None)
    had_job = run.info.status in (*TERMINAL, "SCHEDULED") or TAG_NODE in run.data.tags
    if job is None and pod is None and not had_job:
        if time.time() - run.info.start_time / 1000 < SUBMIT_S:
            return False
        hint = "submit it again"
        write(run, Diagnosis("FAILED", Cause.SUBMIT_ERROR, "The submit broke off before the Job was created", hint=hint))
        return True
    return settle(run, job, pod) or _give_up(run, cluster, job, pod)


def _give_up(run: Any, cluster: Cluster, job: Any, pod: Any) -> bool:
    """Fail a run that has been in a trouble that does not pass for longer than its patience, and remove its Job."""
    if job is None or (pod or {}).get("status", {}).get("phase", "Pending") != "Pending":
        return False
    about = pod or job
    events = cluster.list_events("Pod" if pod else "Job", about["metadata"]["name"])
    trouble, timeout_s = diagnose.cannot_start(pod, job, events), _start_timeout_s(job)
    late = timeout_s is not None and _age_s(job) > timeout_s
    hopeless = trouble is not None and trouble.patience_s is not None and _age_s(about) > trouble.patience_s
    if not (late or hopeless):
        return False
    write(run, trouble.diagnosis if trouble else diagnose.not_started(pod, job, timeout_s))
    cluster.delete_job(job["metadata"]["name"])
    return True


def _start_timeout_s(job: Mapping[str, Any]) -> float | None:
    text = job.get("metadata", {}).get("annotations", {}).get(START_TIMEOUT)
    return float(text) if text else None


def _age_s(item: Mapping[str, Any]) -> float:
    return time.time() - datetime.fromisoformat(item["metadata"]["creationTimestamp"].replace("Z", "+00:00")).timestamp()


def _cluster(run: Any) -> Cluster:
    return connect(run.data.tags.get(TAG_CONTEXT), run.data.tags.get(TAG_NAMESPACE))


@functools.lru_cache(maxsize=64)
def _observer(cluster: Cluster, run_id: str) -> Observer:
    return Observer(cluster, f"{LABEL_RUN}={run_id}")
