"""Start a project on this machine, in its own folder."""

import sys
from pathlib import Path
from typing import Any

from mlflow_backend import scratch as scratch_folders
from mlflow_backend.places.local.prepare import Prepared, prepare
from mlflow_backend.places.local.run import LocalRun
from mlflow_backend.places.local.start import Launch, access, in_container, start
from mlflow_backend.progress import Progress
from mlflow_backend.request import command_line
from mlflow_backend.request.backend_config import BackendConfig
from mlflow_backend.request.project import Project
from mlflow_backend.tracking import runs as mlflow_runs
from mlflow_backend.tracking import uris
from mlflow_runner.contract.tags import TAG_ENVIRONMENT, TAG_TARGET


def submit(
    config: BackendConfig, project: Project, experiment_id: str, client_uri: str, progress: Progress
) -> LocalRun:
    """Start the project in its own folder and return without waiting for it.

    Raises ComputeError: before the MLflow run is created nothing remains, after it the run is
    FAILED with its cause.
    """
    prepared = prepare(config, project, experiment_id, client_uri, progress)
    try:
        run_id = command_line.given_run_id(config.RUN_ID)
        run = mlflow_runs.create_run(project, experiment_id, run_id)
        try:
            return _begin(prepared, run, config, project, client_uri, progress)
        except BaseException as error:
            mlflow_runs.fail(run.info.run_id, error)
            raise
    except BaseException:
        scratch_folders.discard(prepared.scratch)
        raise


def _begin(
    prepared: Prepared,
    run: Any,
    config: BackendConfig,
    project: Project,
    client_uri: str,
    progress: Progress,
) -> LocalRun:
    """Start the runner of the run (an mlflow.entities.Run)."""
    run_id, experiment_id = run.info.run_id, str(run.info.experiment_id)
    submission = prepared.plan.submission_of(run_id, experiment_id)
    key = submission.environment.key if submission.environment else None
    tags = {TAG_TARGET: "local", **({TAG_ENVIRONMENT: key} if key else {})}
    mlflow_runs.schedule(run_id, mlflow_runs.params(project), tags)
    variables = dict(prepared.login)
    if prepared.lock:
        variables |= access(prepared.lock, prepared.scratch)
    if prepared.docker:
        launch = in_container(
            prepared.docker, project, submission, run.info.artifact_uri, config, variables
        )
    else:
        launch = Launch([sys.executable], variables)
    process = start(submission, launch)
    for folder in submission.own_dirs:
        scratch_folders.release(Path(folder))  # the runner may outlive this process
    if url := uris.run_url(client_uri, experiment_id, run_id):
        progress.say(f"run {url}")
    return LocalRun(
        run_id,
        process,
        progress if config.STREAM_OUTPUT else None,
        prepared.scratch,
        project,
        launch.why_not_started,
        client_uri,
        submission.grace_period_s,
    )
