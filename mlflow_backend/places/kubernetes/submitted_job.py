"""A run that was submitted as a Job: what it takes to wait for it, or to cancel it."""

from dataclasses import dataclass

from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.observe import Observer
from mlflow_backend.places.kubernetes.ownership import Claim
from mlflow_backend.places.kubernetes.runs import ClientRuns
from mlflow_backend.progress import Progress
from mlflow_backend.supervision.record import RunRecord


@dataclass(frozen=True)
class SubmittedJob:
    """A run that was submitted as the Job of `claim` to `cluster`. `mark` ends its runner's last
    line; `stream` shows its output.

    A claim without the Job's uid is of a submit that is under way in another process, or broke off.
    """

    cluster: Cluster
    observer: Observer
    claim: Claim
    run_id: str
    mark: str
    stream: bool
    grace_period_s: float
    start_timeout_s: float | None
    progress: Progress

    @property
    def job_name(self) -> str:
        """The name of the Job."""
        return self.claim.job_name

    def read(self) -> RunRecord:
        """What MLflow knows of the run now. Raises TrackingError."""
        return ClientRuns().read(self.run_id)
