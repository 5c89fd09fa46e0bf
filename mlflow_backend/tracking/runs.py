"""The MLflow runs of submits: the only module of the client that writes runs."""

import contextlib
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_backend import mlflow_internals
from mlflow_backend.errors import TrackingError, redact
from mlflow_backend.request.project import Project
from mlflow_backend.tracking import source
from mlflow_backend.tracking.answers import one_line
from mlflow_runner.contract.answers import CODES, Missing
from mlflow_runner.contract.causes import Cause

if TYPE_CHECKING:
    from mlflow.entities import Param, Run, RunTag


def create_run(project: Project, experiment_id: str, run_id: str | None) -> "Run":
    """The MLflow run of a submit: a new run as MLflow's own backends create it, or `run_id`
    continued.

    Raises TrackingError; a run that cannot be continued is left unchanged.
    """
    if run_id:
        return _continue_run(project, run_id)
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    with one_line("the run cannot be created"):
        return client.create_run(experiment_id, tags=source.tags(project))


def _continue_run(project: Project, run_id: str) -> "Run":
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
        # first: the earlier Job says nothing about this run
        for tag in (TAG_JOB_UID, TAG_JOB):
            if tag in run.data.tags:
                _remove_tag(client, run_id, tag)
        # before its cause goes: KILLED without a cause means that the user wants the run stopped
        client.update_run(run_id, "RUNNING")
        for tag in {*END_TAGS, TAG_NODE, TAG_POD, TAG_ATTEMPT} & set(run.data.tags):
            _remove_tag(client, run_id, tag)
    return run


def get_run(run_id: str) -> "Run":
    """The run. Raises TrackingError."""
    from mlflow.tracking import MlflowClient

    with one_line(f"run {run_id}"):
        return MlflowClient().get_run(run_id)


def log(run_id: str, params: Sequence["Param"] = (), tags: Mapping[str, str] = {}) -> None:
    """Log params and tags of the run in one call. Raises TrackingError."""
    from mlflow.tracking import MlflowClient

    with one_line(f"run {run_id}: its {'parameters or ' if params else ''}tags cannot be logged"):
        MlflowClient().log_batch(run_id, params=params, tags=_run_tags(tags))


def _run_tags(tags: Mapping[str, str]) -> list["RunTag"]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]


def schedule(run_id: str, params: Sequence["Param"], tags: Mapping[str, str]) -> None:
    """Log params and tags and set the status SCHEDULED (submitted, not running yet): two calls at
    the same time. Raises TrackingError.
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
    """Mark the run of a failed submit FAILED, if the tracking server answers; the caller raises
    `error`.
    """
    with contextlib.suppress(TrackingError):
        end(run_id, "FAILED", Cause.SUBMIT_ERROR, str(error) or type(error).__name__)


def end(
    run_id: str, status: str, cause: str | None, message: str, exit_code: int | None = None
) -> None:
    """Write a run's end: its tags in one call, then remove tags of an earlier end, then set the
    status. Raises TrackingError.
    """
    from mlflow.tracking import MlflowClient

    from mlflow_runner.contract.ending import end_tags
    from mlflow_runner.contract.tags import END_TAGS

    tags = end_tags(status, cause, message if cause else None, exit_code)
    client = MlflowClient()
    with one_line(f"run {run_id} cannot be updated"):
        client.log_batch(run_id, tags=_run_tags(tags))
        for name in {*END_TAGS} & client.get_run(run_id).data.tags.keys() - tags.keys():
            _remove_tag(client, run_id, name)
        client.set_terminated(run_id, status)


def _remove_tag(client: Any, run_id: str, name: str) -> None:
    """Remove the tag. If another process has removed it already, MLflow answers as for a missing
    run; that is no error.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.delete_tag(run_id, name)
    except MlflowException as error:
        if CODES.get(error.error_code) is not Missing:
            raise


def params(project: Project) -> list["Param"]:
    """The params of the entry point as MLflow's own backends log them, without the credentials of
    URIs.
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
        return str(MlflowClient().get_experiment(experiment_id).artifact_location)


def check_artifact_root(uri: str, experiment_id: str) -> None:
    """Raises TrackingError for a folder of one machine: a pod would write logs and models to its
    own disk.
    """
    if urllib.parse.urlsplit(uri).scheme in ("", "file"):
        raise TrackingError(
            f"experiment {experiment_id}: stores artifacts in the folder {uri}, which pods do not "
            "have",
            code="ArtifactsUnreachable",
            hint="use an experiment of a server that serves artifacts (mlflow server "
            "--artifacts-destination), or mount the folder with the target's 'pod_template'",
        )
