"""Start a project here: its own folder is where it runs."""

import os
import shutil
import sys
from pathlib import Path

from mlflow_backend import scratch as scratch_folders
from mlflow_backend.environment import locks, platforms
from mlflow_backend.environment.permissions import HERE
from mlflow_backend.errors import SnapshotError
from mlflow_backend.files import snapshot
from mlflow_backend.files.code_files import project_files
from mlflow_backend.files.listing import Limits
from mlflow_backend.places.local.run import LocalRun
from mlflow_backend.places.local.start import Place, access, in_container, start
from mlflow_backend.progress import Progress
from mlflow_backend.request import command_line
from mlflow_backend.request import docker_env as docker_spec
from mlflow_backend.request import project as projects
from mlflow_backend.request.backend_config import BackendConfig
from mlflow_backend.request.docker_env import CODE_DIR
from mlflow_backend.request.project import Project
from mlflow_backend.tracking import runs as mlflow_runs
from mlflow_backend.tracking import uris, versions
from mlflow_runner.contract import tracking_variables
from mlflow_runner.contract.submission import Download, Submission
from mlflow_runner.contract.tags import TAG_ENVIRONMENT, TAG_TARGET

CACHE_BYTES = 50_000_000_000
"""Environments and packages of runs on this machine, before the least recently used ones are
removed.
"""
KEPT = Limits(bytes=20_000_000, remedy="name what is no code in .mlflowignore")
"""A run here does not need the archive, so it must not wait long for it: this much takes about a
second.
"""

REPORT_TIMEOUT_S = 60.0
"""How long the reporter tries to tell the end.

It is short: this process tells it then, with the login that made the run.
"""


def submit(
    config: BackendConfig, project: Project, experiment_id: str, client_uri: str, progress: Progress
) -> LocalRun:
    """Start the project in its own folder and return without waiting for it.

    Raises ComputeError before anything is created.
    """
    scratch = _scratch_dir(config.storage_dir)
    try:
        docker = docker_spec.read(project, os.environ)
        placed, downloads = _place_inputs(project, scratch, confined=docker is not None)
        command = projects.command(project, placed)
        kept = None
        if config.builds_environment and not docker:
            kept = locks.obtain(
                project.work_dir,
                project.environment_files,
                platforms.of_this_machine(),
                HERE,
                progress,
            )
        environment = kept and kept.environment
        if kept and (warning := versions.client_warning(kept.mlflow, client_uri)):
            progress.say(warning)
        run_id = command_line.given_run_id(config.RUN_ID)
        run = mlflow_runs.create_run(project, experiment_id, run_id)
    except BaseException:
        scratch_folders.discard(scratch)
        raise
    own_dirs = [*filter(None, (scratch, project.fetched))]
    try:
        mlflow_runs.tag(
            run.info.run_id,
            {TAG_TARGET: "local", **({TAG_ENVIRONMENT: environment.key} if environment else {})},
        )
        mlflow_runs.schedule(run.info.run_id)
        tracking_uri, credentials = uris.split_credentials(uris.for_here(client_uri))
        submission = Submission(
            run_id=run.info.run_id,
            experiment_id=str(run.info.experiment_id),
            tracking_uri=tracking_uri,
            command=command,
            project_dir=CODE_DIR if docker else str(project.work_dir),
            scratch_dir=str(scratch),
            cache_dir=str(locks.cache_dir()),
            keep_archive=_keep_code(project, scratch, progress),
            downloads=downloads,
            environment=environment,
            cache_limit_bytes=CACHE_BYTES,
            phases=kept.phases if kept else (),
            report_timeout_s=REPORT_TIMEOUT_S,
            credential_hosts=tracking_variables.credential_hosts(os.environ),
            own_dirs=tuple(map(str, own_dirs)),
        )
        variables = credentials | (access(kept, scratch) if kept else {})
        if docker:
            place = in_container(
                docker, project, submission, run.info.artifact_uri, config, variables
            )
        else:
            place = Place([sys.executable], variables)
        process = start(submission, place)
        for folder in own_dirs:
            scratch_folders.release(folder)  # the runner may outlive this process
    except BaseException as error:
        mlflow_runs.fail(run.info.run_id, error)
        scratch_folders.discard(scratch)
        raise
    if url := uris.run_url(client_uri, run.info.experiment_id, run.info.run_id):
        progress.say(f"run {url}")
    return LocalRun(
        run.info.run_id,
        process,
        progress if config.STREAM_OUTPUT else None,
        scratch,
        project,
        place.why_not_started,
        client_uri,
        submission.grace_period_s,
    )


def _scratch_dir(storage_dir: str | None) -> Path:
    """A folder of the run's own, below `storage_dir` (the option --storage-dir) if that is
    given.
    """
    if storage_dir:
        os.makedirs(storage_dir, exist_ok=True)
    return scratch_folders.make(storage_dir)


def _place_inputs(
    project: Project, scratch: Path, confined: bool
) -> tuple[dict[str, str], tuple[Download, ...]]:
    """Local files stay where they are; what is remote is downloaded below `scratch`."""
    placed, downloads = {}, []
    for parameter in projects.file_parameters(project, confined):
        path = str(
            parameter.local
            or scratch / "inputs" / parameter.name / projects.base_name(parameter.value)
        )
        placed[parameter.name] = parameter.placed(path)
        if parameter.local is None:
            downloads.append(Download(parameter.value, path))
    return placed, tuple(downloads)


def _keep_code(project: Project, scratch: Path, progress: Progress) -> str | None:
    """An archive of the code for the run's artifacts; a project too large for that still runs
    here.
    """
    try:
        taken = snapshot.take(project_files(project.work_dir, KEPT), {}, KEPT)
    except SnapshotError as error:
        progress.say(f"the code is not kept with the run: {error}")
        return None
    kept = shutil.move(taken.path, scratch / snapshot.FILE_NAME)
    taken.discard()
    return str(kept)
