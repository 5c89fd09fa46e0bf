"""The runs of submits: the only module of the client that writes runs."""

import contextlib
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlflow_backend import mlflow_internals
from mlflow_backend.errors import TrackingError, redact
from mlflow_backend.request.project import Project
from mlflow_backend.tracking import source
from mlflow_backend.tracking.answers import one_line
from mlflow_runner.contract.answers import CODES, Missing
from mlflow_runner.contract.causes import Cause


def create_run(project: Project, experiment_id: str, run_id: str | None):
    """The MLflow run of a submit: a new one as MLflow's own backends make it, or `run_id` taken up
    again.

    Returns an mlflow.entities.Run. Raises TrackingError; a run that cannot be continued is left as
    it is.
    """
    if run_id:
        return _continue_run(project, run_id)
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    with one_line("the run cannot be created"):
        return client.create_run(experiment_id, tags=source.tags(project))


def _continue_run(project: Project, run_id: str):
    from mlflow.tracking import MlflowClient

    from mlflow_runner.contract.tags import (
        END_TAGS,
        TAG_ATTEMPT,
        TAG_JOB,
        TAG_JOB_UID,
        TAG_NODE,
        TAG_POD,
    )

    client = MlflowClient()
    with one_line(f"run {run_id} cannot be continued"):
        run = client.get_run(run_id)
        client.log_batch(run_id, params=params(project))
        # first: the earlier Job tells nothing about this run any more
        for tag in (TAG_JOB_UID, TAG_JOB):
            if tag in run.data.tags:
                _remove_tag(client, run_id, tag)
        # as a new one; a status KILLED without a cause means that its user wants it stopped
        client.update_run(run_id, "RUNNING")
        for tag in {*END_TAGS, TAG_NODE, TAG_POD, TAG_ATTEMPT} & set(run.data.tags):
            _remove_tag(client, run_id, tag)
    return run


def get_run(run_id: str):
    """The run (an mlflow.entities.Run). Raises TrackingError."""
    from mlflow.tracking import MlflowClient

    with one_line(f"run {run_id}"):
        return MlflowClient().get_run(run_id)


def log(run_id: str, params: Sequence[Any] = (), tags: Mapping[str, str] = {}) -> None:
    """Log params (mlflow.entities.Param) and tags of the run in one call. Raises TrackingError."""
    from mlflow.entities import RunTag
    from mlflow.tracking import MlflowClient

    with one_line(f"run {run_id}: its {'parameters or ' if params else ''}tags are refused"):
        MlflowClient().log_batch(
            run_id, params=params, tags=[RunTag(key, value) for key, value in tags.items()]
        )


def schedule(run_id: str, params: Sequence[Any], tags: Mapping[str, str]) -> None:
    """Log params and tags, and say that the run is submitted and does not run yet: two calls at the
    same time. Raises TrackingError.
    """
    with ThreadPoolExecutor(1) as pool:
        scheduled = pool.submit(_set_status, run_id, "SCHEDULED")
        log(run_id, params, tags)
        scheduled.result()


def _set_status(run_id: str, status: str) -> None:
    with one_line(f"run {run_id} cannot be updated"):
        mlflow_internals.set_status(run_id, status)


def upload(run_id: str, path: Path, folder: str) -> None:
    """Log the file as an artifact in `folder`. Raises TrackingError."""
    from mlflow.tracking import MlflowClient

    with one_line(f"run {run_id}: {path.name} cannot be uploaded"):
        MlflowClient().log_artifact(run_id, str(path), folder)


def fail(run_id: str, error: BaseException) -> None:
    """Mark the run of a submit that broke FAILED, as far as the tracking server lets us; `error` is
    the one to be raised.
    """
    with contextlib.suppress(TrackingError):
        end(run_id, "FAILED", Cause.SUBMIT_ERROR, str(error) or type(error).__name__)


def end(
    run_id: str, status: str, cause: str | None, message: str, exit_code: int | None = None
) -> None:
    """Write a run's end: its tags in one call, then the removal of an earlier end's, then the
    status. Raises TrackingError.
    """
    from mlflow.entities import RunTag
    from mlflow.tracking import MlflowClient

    from mlflow_runner.contract.ending import end_tags
    from mlflow_runner.contract.tags import END_TAGS

    tags = end_tags(status, cause, message if cause else None, exit_code)
    client = MlflowClient()
    with one_line(f"run {run_id} cannot be updated"):
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        for name in {*END_TAGS} & client.get_run(run_id).data.tags.keys() - tags.keys():
            _remove_tag(client, run_id, name)
        client.set_terminated(run_id, status)


def _remove_tag(client: Any, run_id: str, name: str) -> None:
    """A tag that another process has already removed is not an error: MLflow answers as if the run
    were missing.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.delete_tag(run_id, name)
    except MlflowException as error:
        if CODES.get(error.error_code) is not Missing:
            raise


def params(project: Project) -> list[Any]:
    """The params of the entry point, as MLflow logs them for a run that it creates, without the
    logins of URIs.
    """
    from mlflow.entities import Param

    declared, extra = project.spec.get_entry_point(project.entry_point).compute_parameters(
        dict(project.parameters), None
    )
    return [Param(key, redact(str(value))) for key, value in {**declared, **extra}.items()]


def artifact_root(experiment_id: str) -> str:
    """Where the experiment's runs store their artifacts (a URI). Raises TrackingError."""
    from mlflow.tracking import MlflowClient

    with one_line(f"experiment {experiment_id}"):
        return MlflowClient().get_experiment(experiment_id).artifact_location


def check_artifact_root(uri: str, experiment_id: str) -> None:
    """Raises TrackingError for a folder of one machine, which pods do not have: logs and models
    would be lost.
    """
    if urllib.parse.urlsplit(uri).scheme in ("", "file"):
        raise TrackingError(
            f"experiment {experiment_id}: stores artifacts in the folder {uri}, which pods do not "
            "have: use an experiment of a server that serves artifacts (mlflow server "
            "--artifacts-destination), or mount the folder with the target's 'pod_template'"
        )
