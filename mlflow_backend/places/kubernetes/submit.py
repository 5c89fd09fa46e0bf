"""Send a project to a cluster: decide everything, have it validated, create the run, then the
objects that the run needs.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

from mlflow_backend.environment import staging
from mlflow_backend.files.listing import format_size
from mlflow_backend.places.kubernetes.check import check
from mlflow_backend.places.kubernetes.client.answers import Object
from mlflow_backend.places.kubernetes.client.observe import Observer
from mlflow_backend.places.kubernetes.create import Creation
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.places.kubernetes.ownership import Claim
from mlflow_backend.places.kubernetes.prepare import CLIENT, PACKAGES, Prepared, prepare
from mlflow_backend.places.kubernetes.run import ClusterRun
from mlflow_backend.places.kubernetes.submitted_job import SubmittedJob
from mlflow_backend.plan.findings import refuse
from mlflow_backend.progress import Progress
from mlflow_backend.request import command_line
from mlflow_backend.request.backend_config import BackendConfig
from mlflow_backend.request.project import Project
from mlflow_backend.tracking import runs as mlflow_runs
from mlflow_backend.tracking import uris

ACCEPTED_S = 300
"""For how long this process does not validate a target again that the API server accepted."""
_accepted_until: dict[tuple[Any, ...], float] = {}


def submit(
    config: BackendConfig, project: Project, experiment_id: str, client_uri: str, progress: Progress
) -> ClusterRun:
    """Submit the run and return without waiting for it.

    Raises ComputeError: before the MLflow run is created nothing remains, after it the run is
    FAILED with its cause and the created objects are deleted.
    """
    with prepare(config, project, experiment_id, client_uri, progress) as prepared:
        _refuse_unless_accepted(prepared)
        run_id = command_line.given_run_id(config.RUN_ID)
        run = mlflow_runs.create_run(project, experiment_id, run_id)
        try:
            params = mlflow_runs.params(project)
            project.discard()
            return send(prepared, run, params, client_uri, config.STREAM_OUTPUT, progress)
        except BaseException as error:
            mlflow_runs.fail(run.info.run_id, error)
            raise


def _refuse_unless_accepted(prepared: Prepared) -> None:
    """Raise Rejected for a plan with errors, unless this target was accepted within ACCEPTED_S."""
    experiment_id = prepared.plan.submission.experiment_id
    has_secret = bool(prepared.credentials)
    fields = prepared.target.model_dump_json()
    kind = (prepared.cluster, fields, has_secret, experiment_id)
    if time.monotonic() > _accepted_until.get(kind, 0.0):
        refuse(check(prepared))
        _accepted_until[kind] = time.monotonic() + ACCEPTED_S


def send(
    prepared: Prepared,
    run: Any,
    params: Sequence[Any],
    client_uri: str,
    stream: bool,
    progress: Progress,
) -> ClusterRun:
    """Create the objects of the run (an mlflow.entities.Run), whose params are logged first.

    Raises ComputeError.
    """
    run_id, experiment_id = run.info.run_id, str(run.info.experiment_id)
    url = uris.run_url(client_uri, experiment_id, run_id)
    bundle = prepared.bundle(run_id, experiment_id)
    job = prepared.job(run_id, bundle, url)
    if _has_uploads(prepared):
        mlflow_runs.log(run_id, params)  # an upload may take minutes
        _upload(prepared, run_id, progress)
    creation = Creation(prepared.cluster, run_id, job, bundle, params, prepared.tags())
    created = creation.create()
    try:
        return _created(prepared, created, run_id, url, stream, progress)
    except BaseException:
        creation.undo(created)
        raise


def _created(
    prepared: Prepared,
    job: Object,
    run_id: str,
    url: str | None,
    stream: bool,
    progress: Progress,
) -> ClusterRun:
    name, cluster = job["metadata"]["name"], prepared.cluster
    where = f"namespace {cluster.namespace} (context {cluster.context})"
    progress.say(f"submitted Job {name} to {where}")
    if url:
        progress.say(f"run {url}")
    return ClusterRun(
        SubmittedJob(
            cluster,
            Observer(cluster, labels.CLIENT, CLIENT),
            Claim(name, job["metadata"]["uid"], cluster.identity()),
            run_id,
            prepared.plan.submission.mark,
            stream,
            prepared.target.grace_period,
            prepared.target.start_timeout,
            progress,
        )
    )


def _has_uploads(prepared: Prepared) -> bool:
    archive = prepared.plan.submission.archive
    is_staged = bool(prepared.lock and prepared.target.stage_packages)
    return is_staged or bool(archive and archive.artifact)


def _upload(prepared: Prepared, run_id: str, progress: Progress) -> None:
    """Upload what is too large for a ConfigMap."""
    archive = prepared.plan.submission.archive
    if archive and archive.artifact:
        progress.waiting(f"uploading the snapshot ({format_size(prepared.archive.size_bytes)})")
        mlflow_runs.upload(run_id, prepared.archive.path, os.path.dirname(archive.artifact))
    if prepared.lock and prepared.target.stage_packages:
        with staging.stage(prepared.lock, progress) as packages:
            mlflow_runs.upload(run_id, packages, os.path.dirname(PACKAGES))
