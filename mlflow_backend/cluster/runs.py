"""The runs that were sent to clusters, as MLflow's client has them."""

from collections.abc import Iterator, Sequence
from typing import Any

from mlflow_backend import tracking
from mlflow_backend.cluster.diagnose import Diagnosis
from mlflow_backend.cluster.ownership import Known
from mlflow_backend.cluster.settle import UNFINISHED
from mlflow_backend.errors import TrackingError
from mlflow_runner.submission import TAG_JOB

PAGE = 200


def known(run: Any) -> Known:
    """An mlflow.entities.Run as `settle` takes it."""
    info = run.info
    return Known(info.run_id, info.status, run.data.tags, info.start_time / 1000, info.experiment_id, info.lifecycle_stage == "deleted")


class ClientRuns:
    """`settle.Runs` through MLflow's client."""

    def read(self, run_id: str) -> Known:
        return known(tracking.get_run(run_id))

    def end(self, run_id: str, end: Diagnosis) -> None:
        tracking.end(run_id, end.status, end.cause, end.message, end.exit_code)

    def children(self, run_id: str) -> Iterator[Known]:
        from mlflow.tracking import MlflowClient

        client, experiment_id = MlflowClient(), tracking.get_run(run_id).info.experiment_id
        wanted, token = f"tags.`mlflow.parentRunId` = '{run_id}' AND attributes.status = 'RUNNING'", None
        while True:
            page = client.search_runs([experiment_id], wanted, max_results=PAGE, page_token=token)
            yield from (known(run) for run in page if TAG_JOB not in run.data.tags)
            token = page.token
            if not token:
                return


def run_of(run_id: str) -> Any:
    """The run (an mlflow.entities.Run). Raises TrackingError when there is none, or it is not of a cluster."""
    run = tracking.get_run(run_id)
    if TAG_JOB not in run.data.tags:
        raise TrackingError(f"run {run_id}: was not sent to a cluster (it has no tag {TAG_JOB})")
    return run


def search(experiments: Sequence[str] | None, unfinished: bool) -> Iterator[Any]:
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
