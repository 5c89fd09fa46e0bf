"""The runs of one namespace over MLflow's REST API, with the standard library alone."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from mlflow_backend.cluster.diagnose import Diagnosis
from mlflow_backend.cluster.ownership import Known
from mlflow_backend.cluster.settle import UNFINISHED
from mlflow_runner.ending import end_tags
from mlflow_runner.submission import TAG_CLUSTER, TAG_JOB
from mlflow_runner.tracking.rest import RestServer, tags_of

PAGE = 200
IDS_OF_A_CALL = 200


class ServerRuns:
    """`settle.Runs` over REST, and the searches of the controller. Every method raises Unavailable or Refused.

    `on_call` is told the endpoint of every call.
    """

    def __init__(self, tracking_uri: str, on_call: Callable[[str], None] = lambda endpoint: None):
        self._server = RestServer(tracking_uri)
        self._on_call = on_call

    def read(self, run_id: str) -> Known:
        self._on_call("runs/get")
        return _known(self._server.get_run(run_id))

    def end(self, run_id: str, end: Diagnosis) -> None:
        """The tags first, so that a terminal status always has its cause."""
        self._on_call("runs/log-batch")
        self._server.log(run_id, end_tags(end.status, end.cause, end.cause and end.message, end.exit_code), {})
        self._on_call("runs/update")
        self._server.set_status(run_id, end.status, ended=True)

    def children(self, run_id: str) -> Iterator[Known]:
        experiment = self.read(run_id).experiment_id
        found = self._search([experiment], f"tags.`mlflow.parentRunId` = '{run_id}' AND attributes.status = 'RUNNING'")
        yield from (run for run in found if TAG_JOB not in run.tags)

    def unfinished(self, cluster_id: str) -> Iterator[Known]:
        """Every run that was sent to this namespace and has no final state."""
        experiments = list(self._experiments())
        for wanted in UNFINISHED:
            yield from self._search(experiments, f"{wanted} AND tags.`{TAG_CLUSTER}` = '{cluster_id}'")

    def killed(self, run_ids: Collection[str], experiments: Collection[str]) -> Iterator[Known]:
        """Those of the runs that are KILLED: one call for some hundred."""
        ids = sorted(run_ids)
        for start in range(0, len(ids), IDS_OF_A_CALL):
            listed = ", ".join(f"'{run_id}'" for run_id in ids[start : start + IDS_OF_A_CALL])
            yield from self._search(sorted(experiments), f"attributes.run_id IN ({listed}) AND attributes.status = 'KILLED'")

    def _search(self, experiments: list[str], wanted: str) -> Iterator[Known]:
        asked: dict[str, Any] = {"experiment_ids": experiments, "filter": wanted, "max_results": PAGE}
        for page in self._pages("runs/search", asked) if experiments else ():
            yield from map(_known, page.get("runs", ()))

    def _experiments(self) -> Iterator[str]:
        for page in self._pages("experiments/search", {"max_results": PAGE, "view_type": "ACTIVE_ONLY"}):
            yield from (item["experiment_id"] for item in page.get("experiments", ()))

    def _pages(self, endpoint: str, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        token = None
        while True:
            self._on_call(endpoint)
            page = self._server.call("POST", endpoint, {**asked, **({"page_token": token} if token else {})})
            yield page
            token = page.get("next_page_token")
            if not token:
                return


def _known(run: dict[str, Any]) -> Known:
    info = run["info"]
    deleted = info.get("lifecycle_stage") == "deleted"
    return Known(info["run_id"], info["status"], tags_of(run), info["start_time"] / 1000, info["experiment_id"], deleted)
