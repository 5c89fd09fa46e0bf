"""A run in a cluster as MLflow hands it to the user: wait for it, ask its status, cancel it."""

from mlflow.projects.submitted_run import SubmittedRun

from mlflow_backend.errors import ClusterError, TrackingError, raise_as_mlflow
from mlflow_backend.places.kubernetes.client.gone import pods_are_gone
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.places.kubernetes.ownership import is_labelled
from mlflow_backend.places.kubernetes.submitted_job import SubmittedJob
from mlflow_backend.places.kubernetes.wait import POD_GONE_S, Waiting
from mlflow_backend.supervision.record import has_ended
from mlflow_backend.tracking import runs as mlflow_runs
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.tags import TAG_CAUSE, TAG_MESSAGE


class ClusterRun(SubmittedRun):  # type: ignore[misc]  # MLflow has no types
    """One run as a Kubernetes Job. `run_id` is the MLflow run's."""

    def __init__(self, submitted: SubmittedJob) -> None:
        super().__init__()
        self._submitted = submitted

    @property
    def run_id(self) -> str:
        """The MLflow run's id."""
        return self._submitted.run_id

    @property
    def job_name(self) -> str:
        """The name of its Job."""
        return self._submitted.job_name

    @raise_as_mlflow()
    def wait(self) -> bool:
        """Wait for the run's end, showing its output if the run streams; True if it FINISHED.

        The end is the one written in MLflow by the runner; where the runner could not write it, it
        is settled from what the cluster shows.
        """
        observer = self._submitted.observer
        changes = observer.subscribe(self.job_name)
        self._submitted.progress.begin(self.job_name)
        try:
            run = Waiting(self._submitted, changes).until_end()
        finally:
            self._submitted.progress.end()
            observer.unsubscribe(self.job_name, changes)
        if run.is_deleted:
            self._submitted.progress.say(f"run {self.run_id} is deleted in MLflow, which stops it")
            return False
        if run.status != "FINISHED":
            self._submitted.progress.say(
                f"{run.status}, {run.tags.get(TAG_CAUSE)}: {run.tags.get(TAG_MESSAGE)}"
            )
        return run.status == "FINISHED"

    @raise_as_mlflow()
    def get_status(self) -> str:
        """The run's status in MLflow: SCHEDULED, RUNNING, FINISHED, FAILED or KILLED."""
        return self._submitted.read().status

    @raise_as_mlflow()
    def cancel(self) -> None:
        """Mark the run KILLED, delete its Job, and wait until its pod is gone.

        The Job is deleted whatever MLflow says: its run may be deleted there (mlflow#689), or the
        server away. Raises ClusterError if the pod stays or the Job is not the run's, TrackingError
        if the Job is gone and MLflow could not be told.
        """
        untold = self._mark_cancelled()
        job_uid = self._delete_job()
        if job_uid:
            self._wait_until_gone(job_uid)
        if untold:
            raise TrackingError(
                f"Job {self.job_name} is deleted, but its run could not be updated: "
                f"{untold.message}",
                code=untold.code,
                hint=f"cancel it again: mlflow-compute cancel {self.run_id}",
            )

    def _mark_cancelled(self) -> TrackingError | None:
        """Tell MLflow, unless the run has ended or is deleted there; the error that prevented
        it.
        """
        try:
            run = self._submitted.read()
            if run.is_deleted:
                self._submitted.progress.say(
                    f"run {self.run_id} is deleted in MLflow: deleting its Job {self.job_name}"
                )
            elif not has_ended(run):
                mlflow_runs.end(self.run_id, "KILLED", Cause.CANCELLED, "The run was cancelled.")
        except TrackingError as error:
            return error
        return None

    def _delete_job(self) -> str | None:
        """Delete the run's Job; its uid, None where there never was a Job.

        Anyone with a login to MLflow can write the tags that name a Job: one that is not labelled
        for the run is not the run's.
        """
        cluster, uid = self._submitted.cluster, self._submitted.claim.job_uid
        job = cluster.read_job(self.job_name)
        if job is None or uid not in (None, job["metadata"]["uid"]):
            return uid  # gone already; another Job may have its name
        if not is_labelled(self.run_id, job):
            raise ClusterError(
                f"Job {self.job_name}: the tags of run {self.run_id} name it, but its labels do "
                "not name the run: it is left unchanged",
                code="WrongOwner",
                hint="check who wrote the tags",
            )
        found_uid = str(job["metadata"]["uid"])
        cluster.delete_job(self.job_name, found_uid)
        return found_uid

    def _wait_until_gone(self, job_uid: str) -> None:
        timeout_s = self._submitted.grace_period_s + POD_GONE_S
        if not pods_are_gone(
            self._submitted.cluster, f"{labels.RUN}={self.run_id}", job_uid, timeout_s
        ):
            raise ClusterError(
                f"Job {self.job_name}: deleted, but its pod is still there after the grace period",
                hint=f"look at its node: kubectl get pods -o wide -l {labels.RUN}={self.run_id}",
            )
