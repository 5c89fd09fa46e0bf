"""Decide everything about a run on this machine: the plan, and what its start needs."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_backend import mlflow_internals
from mlflow_backend import scratch as scratch_folders
from mlflow_backend.environment import locks, platforms
from mlflow_backend.environment.permissions import HERE
from mlflow_backend.errors import SnapshotError
from mlflow_backend.files import snapshot
from mlflow_backend.files.code_files import project_files
from mlflow_backend.files.listing import Limits
from mlflow_backend.plan.plan import UNKNOWN_RUN, Place, Plan, Source
from mlflow_backend.progress import Progress
from mlflow_backend.request import docker_env
from mlflow_backend.request import project as projects
from mlflow_backend.request.backend_config import BackendConfig
from mlflow_backend.request.docker_env import CODE_DIR, DockerEnv
from mlflow_backend.request.project import Project
from mlflow_backend.tracking import uris, versions
from mlflow_runner.contract import tracking_variables
from mlflow_runner.contract.submission import Download, Submission

CACHE_BYTES = 50_000_000_000
"""Environments and packages of runs on this machine, before the least recently used ones are
removed.
"""
ARCHIVE_LIMITS = Limits(bytes=20_000_000, remedy="exclude what is not code in .mlflowignore")
"""A run here does not need the archive of its code, and should not wait for it: this much takes
about a second.
"""
REPORT_TIMEOUT_S = 60.0
"""How long the reporter tries to write the end.

It is short: after that this process writes it, with the login that created the run.
"""


@dataclass(frozen=True)
class Prepared:
    """A plan, and what its start needs: the run's own folder, the project's docker_env, the lock,
    and the variables of the tracking URI's login.
    """

    plan: Plan
    scratch: Path
    docker: DockerEnv | None
    lock: locks.CachedLock | None
    login: Mapping[str, str] = field(repr=False)


def prepare(
    config: BackendConfig, project: Project, experiment_id: str, client_uri: str, progress: Progress
) -> Prepared:
    """Decide everything; only the folder `scratch` is created, and removed after an error.

    Raises ComputeError.
    """
    scratch = _scratch_dir(config.storage_dir)
    try:
        return _prepare(config, project, experiment_id, client_uri, scratch, progress)
    except BaseException:
        scratch_folders.discard(scratch)
        raise


def _prepare(
    config: BackendConfig,
    project: Project,
    experiment_id: str,
    client_uri: str,
    scratch: Path,
    progress: Progress,
) -> Prepared:
    docker = docker_env.read(project, os.environ)
    placed, downloads = _place_inputs(project, scratch, confined=docker is not None)
    tracking_uri, login = uris.split_credentials(uris.make_absolute(client_uri))
    command = projects.command(project, placed)
    lock = None
    if config.builds_environment and not docker:
        lock = _lock(project, client_uri, progress)
    draft = Submission(
        run_id=UNKNOWN_RUN,
        experiment_id=str(experiment_id),
        tracking_uri=tracking_uri,
        command=command,
        project_dir=CODE_DIR if docker else str(project.work_dir),
        scratch_dir=str(scratch),
        cache_dir=str(locks.cache_dir()),
        keep_archive=_archive_code(project, scratch, progress),
        downloads=downloads,
        environment=lock.environment if lock else None,
        cache_limit_bytes=CACHE_BYTES,
        phases=lock.phases if lock else (),
        report_timeout_s=REPORT_TIMEOUT_S,
        credential_hosts=tracking_variables.credential_hosts(os.environ),
        own_dirs=tuple(str(folder) for folder in (scratch, project.fetched) if folder),
    )
    place = Place("local", "this machine", {})
    plan = Plan(Source.of(project), place, draft, mlflow_internals.user())
    return Prepared(plan, scratch, docker, lock, login)


def _lock(project: Project, client_uri: str, progress: Progress) -> locks.CachedLock | None:
    lock = locks.obtain(
        project.work_dir, project.environment_files, platforms.of_this_machine(), HERE, progress
    )
    if lock and (warning := versions.client_warning(lock.mlflow, client_uri)):
        progress.say(warning)
    return lock


def _scratch_dir(storage_dir: str | None) -> Path:
    """The run's own folder, below `storage_dir` (the option --storage-dir) if that is given."""
    if storage_dir:
        os.makedirs(storage_dir, exist_ok=True)
    return scratch_folders.make(storage_dir)


def _place_inputs(
    project: Project, scratch: Path, confined: bool
) -> tuple[dict[str, str], tuple[Download, ...]]:
    """The values of file parameters, and what is downloaded for them below `scratch`; local files
    stay where they are.
    """
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


def _archive_code(project: Project, scratch: Path, progress: Progress) -> str | None:
    """The path of an archive of the code for the run's artifacts; None if the project is too large
    or cannot be archived, which does not stop the run.
    """
    try:
        archive = snapshot.take(project_files(project.work_dir, ARCHIVE_LIMITS), {}, ARCHIVE_LIMITS)
    except SnapshotError as error:
        progress.say(f"the code is not kept with the run: {error}")
        return None
    path = shutil.move(archive.path, scratch / snapshot.FILE_NAME)
    archive.discard()
    return str(path)
