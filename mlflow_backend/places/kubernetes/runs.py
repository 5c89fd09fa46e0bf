"""The runs that were sent to clusters, as MLflow's client has them."""

import heapq
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow_backend.errors import TrackingError, nearest
from mlflow_backend.supervision import record
from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_backend.supervision.record import UNFINISHED, RunRecord, unfinished_below
from mlflow_backend.tracking import runs as mlflow_runs
from mlflow_backend.tracking.answers import one_line
from mlflow_runner.contract.tags import TAG_JOB

PAGE = 200
EXPERIMENTS_OF_A_CALL = 1000
LOGS = "logs"
"""The folder of the run's artifacts that holds what it printed."""


def record_of(run: Any) -> RunRecord:
    """An mlflow.entities.Run as `settle` takes it."""
    info = run.info
    return RunRecord(
        info.run_id,
        info.status,
        run.data.tags,
        info.start_time / 1000,
        info.experiment_id,
        info.lifecycle_stage == "deleted",
    )


def has_ended(run: Any) -> bool:
    """Whether an mlflow.entities.Run has its final end, or is deleted."""
    return record.has_ended(record_of(run))


class ClientRuns:
    """`Runs` through MLflow's client."""

    def read(self, run_id: str) -> RunRecord:
        """The run as MLflow has it now. Raises TrackingError."""
        return record_of(mlflow_runs.get_run(run_id))

    def end(self, run_id: str, end: Diagnosis) -> None:
        """Write the run's end. Raises TrackingError."""
        mlflow_runs.end(run_id, end.status, end.cause, end.message, end.exit_code)

    def children(self, parent: RunRecord) -> Iterator[RunRecord]:
        """The nested runs directly below a run, in its experiment, that are RUNNING or
        SCHEDULED.
        """
        for wanted in unfinished_below(parent):
            yield from map(record_of, _pages([parent.experiment_id], wanted))


def run_of(run_id: str) -> Any:
    """The run (an mlflow.entities.Run).

    Raises TrackingError when there is none, or it is not of a cluster.
    """
    run = mlflow_runs.get_run(run_id)
    if TAG_JOB not in run.data.tags:
        raise TrackingError(
            f"run {run_id}: was not sent to a cluster (it has no tag {TAG_JOB})", code="NotFound"
        )
    return run


def search(
    experiments: Sequence[str] | None, unfinished: bool, with_tag: str = TAG_JOB
) -> Iterator[Any]:
    """The runs that were sent to a cluster and have this tag, of these experiments (ids) or of all,
    the newest first.

    Each is given once, also when its status changes meanwhile. Raises TrackingError.
    """
    ids = list(experiments or _experiments())
    parts = [
        ids[start : start + EXPERIMENTS_OF_A_CALL]
        for start in range(0, len(ids), EXPERIMENTS_OF_A_CALL)
    ]
    with_job = f"tags.`{with_tag}` LIKE '%'"
    filters = [f"{wanted} AND {with_job}" for wanted in UNFINISHED] if unfinished else [with_job]
    found = [_pages(part, wanted) for part in parts for wanted in filters]
    given = set()
    for run in heapq.merge(*found, key=lambda run: -run.info.start_time):
        if run.info.run_id not in given:
            given.add(run.info.run_id)
            yield run


def experiments_of(names: Sequence[str]) -> list[str]:
    """The ids of the experiments with these names.

    Raises TrackingError when there is none of a name.
    """
    from mlflow.tracking import MlflowClient

    found = []
    for name in names:
        with one_line(f"experiment {name}"):
            experiment = MlflowClient().get_experiment_by_name(name)
            known_names = [] if experiment else [item.name for item in _listed_experiments()]
        if experiment is None:
            raise TrackingError(
                f"--experiment {name}: there is no experiment of this name",
                code="NotFound",
                hint=nearest(name, known_names),
            )
        found.append(experiment.experiment_id)
    return found


def log_parts(run_id: str) -> Iterator[bytes]:
    """What the run printed, in order, as far as it is stored. Raises TrackingError."""
    from mlflow.tracking import MlflowClient

    client, what = MlflowClient(), f"run {run_id}: its log could not be read"
    try:
        with one_line(what):
            for item in sorted(
                client.list_artifacts(run_id, LOGS), key=lambda item: _in_order(item.path)
            ):
                yield Path(client.download_artifacts(run_id, item.path)).read_bytes()
    except TrackingError:
        raise
    except Exception as error:  # each artifact store has exceptions of its own
        raise TrackingError(f"{what}: {type(error).__name__}: {error}") from None


def _experiments() -> Iterator[str]:
    with one_line("the experiments could not be listed"):
        yield from (item.experiment_id for item in _listed_experiments())


def _listed_experiments() -> Iterator[Any]:
    from mlflow.tracking import MlflowClient

    client, token = MlflowClient(), None
    while True:
        page = client.search_experiments(max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _pages(experiments: Sequence[str], wanted: str) -> Iterator[Any]:
    """The runs of all pages, the newest first."""
    from mlflow.tracking import MlflowClient

    client, token = MlflowClient(), None
    while True:
        with one_line("the runs could not be listed"):
            page = client.search_runs(
                experiments,
                wanted,
                max_results=PAGE,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
        yield from page
        token = page.token
        if not token:
            return


def _in_order(path: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in a name by their value: part 10000 comes after part 9999."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]
