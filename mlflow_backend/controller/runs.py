"""Runs over MLflow's REST API, with the standard library alone.

The server may be a proxy, another program, or broken. An answer of any other shape than MLflow's is
Unavailable, with one sentence, and never an exception that ends a thread.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_backend.supervision.record import UNFINISHED, RunRecord, unfinished_below
from mlflow_runner.contract.answers import Unavailable
from mlflow_runner.contract.ending import end_tags
from mlflow_runner.contract.tags import END_TAGS, TAG_CLUSTER
from mlflow_runner.tracking.rest import RestServer, check_run, tags_of

PAGE = 200
IDS_OF_A_CALL = 200
EXPERIMENTS_OF_A_CALL = 1000
MAX_PAGES = 10_000
"""A server that sends more pages sends them forever."""
UNLIKE = "the answer is not MLflow's: check that MLFLOW_TRACKING_URI names an MLflow server"
T = TypeVar("T")


class ServerRuns:
    """`Runs` over REST, and the searches of the controller. Every method raises Unavailable
    or Refused.

    `on_call` is called with the endpoint of every call.
    """

    def __init__(
        self, tracking_uri: str, on_call: Callable[[str], None] = lambda endpoint: None
    ) -> None:
        self._server = RestServer(tracking_uri)
        self._on_call = on_call

    def read(self, run_id: str) -> RunRecord:
        """The run of this id."""
        self._on_call("runs/get")
        run = _record_of(self._server.get_run(run_id))
        if run.run_id != run_id:
            raise Unavailable(f"GET runs/get: run {run.run_id} instead of {run_id}: {UNLIKE}")
        return run

    def end(self, run_id: str, end: Diagnosis) -> None:
        """Write a run's end: its tags in one call, then remove the tags of an earlier end, then
        set the status.
        """
        tags = end_tags(end.status, end.cause, end.cause and end.message, end.exit_code)
        self._on_call("runs/log-batch")
        self._server.log(run_id, tags, {})
        for name in {*END_TAGS} & self.read(run_id).tags.keys() - tags.keys():
            self._on_call("runs/delete-tag")
            self._server.remove_tag(run_id, name)
        self._on_call("runs/update")
        self._server.set_status(run_id, end.status, ended=True)

    def children(self, parent: RunRecord) -> Iterator[RunRecord]:
        """The nested runs directly below a run, in its experiment, that are RUNNING or
        SCHEDULED.
        """
        for wanted in unfinished_below(parent):
            yield from self._search([parent.experiment_id], wanted)

    def unfinished(self, cluster_id: str) -> Iterator[RunRecord]:
        """Every run that was sent to this namespace (its uid) and has no final state."""
        experiments = list(self._experiments())
        for wanted in UNFINISHED:
            yield from self._search(
                experiments, f"{wanted} AND tags.`{TAG_CLUSTER}` = '{cluster_id}'"
            )

    def stopped(self, runs: Collection[RunRecord]) -> Iterator[RunRecord]:
        """Those of the runs that are now KILLED or deleted in MLflow: two calls for some hundred.

        The ids of experiments must come from MLflow: it rejects a search that names an unknown one.
        """
        ordered = sorted(runs, key=lambda run: (run.experiment_id, run.run_id))
        for part in _parts(ordered, IDS_OF_A_CALL):
            experiments = sorted({run.experiment_id for run in part})
            ids = ", ".join(f"'{run.run_id}'" for run in part)
            yield from self._search(
                experiments, f"attributes.run_id IN ({ids}) AND attributes.status = 'KILLED'"
            )
            yield from self._search(experiments, f"attributes.run_id IN ({ids})", "DELETED_ONLY")

    def _search(
        self, experiments: Sequence[str], wanted: str, view: str = "ACTIVE_ONLY"
    ) -> Iterator[RunRecord]:
        for part in _parts(experiments, EXPERIMENTS_OF_A_CALL):
            query = {
                "experiment_ids": part,
                "filter": wanted,
                "max_results": PAGE,
                "run_view_type": view,
            }
            yield from map(_record_of, self._pages("runs/search", query, "runs"))

    def _experiments(self) -> Iterator[str]:
        query = {"max_results": PAGE, "view_type": "ACTIVE_ONLY"}
        for item in self._pages("experiments/search", query, "experiments"):
            if not isinstance(item, dict) or not isinstance(item.get("experiment_id"), str):
                raise Unavailable(f"POST experiments/search: {UNLIKE}")
            yield item["experiment_id"]

    def _pages(self, endpoint: str, query: Mapping[str, Any], key: str) -> Iterator[Any]:
        """The items (`key` of each page) of all pages."""
        token: Any = None
        for _ in range(MAX_PAGES):
            self._on_call(endpoint)
            page = self._server.call(
                "POST", endpoint, {**query, **({"page_token": token} if token else {})}
            )
            items, before, token = page.get(key) or [], token, page.get("next_page_token")
            if not isinstance(items, list) or (token and token == before):
                break
            yield from items
            if not token:
                return
        raise Unavailable(f"POST {endpoint}: {UNLIKE}")


def _record_of(run: Any) -> RunRecord:
    """A run as the API returns it. Raises Unavailable for anything else."""
    run = check_run(run)
    info = run["info"]
    try:
        started_s = info.get("start_time", 0) / 1000
    except OverflowError:
        raise Unavailable(f"a run's start_time: {UNLIKE}") from None
    is_deleted = info.get("lifecycle_stage") == "deleted"
    return RunRecord(
        info["run_id"],
        info["status"],
        tags_of(run),
        started_s,
        info.get("experiment_id", ""),
        is_deleted,
    )


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
