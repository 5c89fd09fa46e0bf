"""Decide everything about a run in a cluster: the plan, and what the submit needs."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_backend import credentials, mlflow_internals
from mlflow_backend.environment import locks, permissions, platforms
from mlflow_backend.errors import ConfigError, redact
from mlflow_backend.files import snapshot
from mlflow_backend.files.listing import Limits
from mlflow_backend.places import runner_zip
from mlflow_backend.places.kubernetes import files, image, shared_targets
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.connect import connect
from mlflow_backend.places.kubernetes.objects import bundle as bundles
from mlflow_backend.places.kubernetes.objects import manifest
from mlflow_backend.plan.plan import UNKNOWN_RUN, Place, Plan, Source
from mlflow_backend.progress import Progress
from mlflow_backend.request import docker_env
from mlflow_backend.request import project as projects
from mlflow_backend.request.backend_config import BackendConfig
from mlflow_backend.request.docker_env import DockerEnv
from mlflow_backend.request.project import Project
from mlflow_backend.targets import lookup
from mlflow_backend.targets.lookup import NamedTarget
from mlflow_backend.targets.target import Target
from mlflow_backend.tracking import settings as mlflow_settings
from mlflow_backend.tracking import uris, versions
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.submission import Archive, Environment, Submission
from mlflow_runner.contract.tags import (
    TAG_CONTEXT,
    TAG_ENVIRONMENT,
    TAG_NAMESPACE,
    TAG_SNAPSHOT,
    TAG_TARGET,
)

IN_CONFIG_MAP_BYTES = 256 * 1024
"""A larger archive travels as an artifact of the run: each run has its own ConfigMap, and etcd
stores a few gigabytes in total.
"""
PACKAGES = "environment/packages.tar"
"""The artifact with the run's staged packages."""
CLIENT = secrets.token_hex(4)
"""Labels the Jobs of this process, so that one watch covers them all and no others."""


@dataclass(frozen=True)
class Prepared:
    """A plan, and what the submit needs: the archive on disk, the lock, the contents of the run's
    own Secret (`credentials`), and random values that others cannot guess.
    """

    plan: Plan
    cluster: Cluster
    target: Target
    archive: snapshot.Snapshot
    lock: locks.CachedLock | None
    credentials: Mapping[str, bytes] = field(repr=False)
    unique: str = field(default_factory=lambda: secrets.token_hex(manifest.UNIQUE_BYTES))
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def tags(self) -> dict[str, str]:
        """The run's tags that do not depend on its Job."""
        draft = self.plan.submission
        tags = {
            TAG_TARGET: self.plan.place.target,
            TAG_CONTEXT: self.cluster.context,
            TAG_NAMESPACE: self.cluster.namespace,
        }
        if draft.archive:
            tags[TAG_SNAPSHOT] = draft.archive.sha256
        if draft.environment:
            tags[TAG_ENVIRONMENT] = draft.environment.key
        return tags

    def bundle(self, run_id: str, experiment_id: str) -> bundles.Bundle:
        """The contents of the run's ConfigMap and Secret."""
        draft = self.plan.submission
        submission = self.plan.submission_of(run_id, experiment_id)
        texts = (draft.tracking_uri, draft.command, *(item.uri for item in draft.downloads))
        return bundles.make(
            runner_zip.build(),
            submission,
            self.archive.read() if draft.archive and draft.archive.path else None,
            self.credentials,
            any(map(credentials.has_credential, texts)),
            self.nonce,
            manifest.WORK_DIR,
        )

    def job(self, run_id: str, bundle: bundles.Bundle, run_url: str | None) -> dict[str, Any]:
        """The run's Job."""
        source = self.plan.source
        identity = manifest.Identity(
            manifest.job_name(source.name, run_id, self.unique),
            source.name,
            self.plan.user,
            CLIENT,
            self.plan.place.target,
            run_url,
            redact(source.uri),
        )
        submission = self.plan.submission._replace(run_id=run_id)
        return manifest.job(submission, self.target, identity, bundle, self.plan.variables)


@contextlib.contextmanager
def prepare(
    config: BackendConfig, project: Project, experiment_id: str, client_uri: str, progress: Progress
) -> Iterator[Prepared]:
    """Decide everything; only local files are created, and removed when the context ends.

    Raises ComputeError.
    """
    named = lookup.find(
        str(config.COMPUTE), config.overrides, shared_targets.load, project.work_dir, progress.say
    )
    docker = docker_env.read(project, os.environ)
    target = _target(named, docker, config, progress)
    uri = uris.resolve_for_pods(
        target.tracking_uri, client_uri, named.name, manifest.on_host_network(target)
    )
    uri, settings = mlflow_settings.collect(os.environ, uri)
    cluster = connect(target.context, target.namespace)
    lock = None if docker else _lock(project, target, client_uri, progress)
    limits = Limits(target.snapshot_files, target.snapshot_bytes)
    with files.pack(project, lock, limits, progress) as packed:
        if docker and config.build_image:
            target = _with_built_image(target, docker, packed.archive, config, progress)
        secret = _credentials(target, docker, settings, lock)
        plan = Plan(
            Source.of(project),
            Place(
                named.name,
                named.source,
                target.model_dump(mode="json", exclude_unset=True),
                cluster.context,
                cluster.namespace,
            ),
            _draft(project, target, experiment_id, uri, packed, lock),
            mlflow_internals.user(),
            settings.plain,
            tuple(sorted(secret)),
            packed.archive.size_bytes,
        )
        yield Prepared(plan, cluster, target, packed.archive, lock, secret)


def _target(
    named: NamedTarget, docker: DockerEnv | None, config: BackendConfig, progress: Progress
) -> Target:
    """The target with the image and variables of the project's docker_env.

    Raises ConfigError without an image.
    """
    target = named.target
    if docker:
        target = _with_docker(target, docker, config, progress)
    elif config.build_image:
        raise ConfigError(
            "--build-image: the project has no docker_env",
            code="ConflictingSettings",
            hint="remove the option: the project runs in the target's image",
        )
    if not target.image:
        raise ConfigError(
            f"target '{named.name}' ({named.source}): has no 'image'",
            code="MissingSetting",
            hint="name an image with python3 there, see 'image' in the README",
        )
    return target


def _with_built_image(
    target: Target,
    docker: DockerEnv,
    code: snapshot.Snapshot,
    config: BackendConfig,
    progress: Progress,
) -> Target:
    built = image.push(docker, code, _repository(target), config.docker_auth, progress)
    return target.model_copy(update={"image": built})


def _repository(target: Target) -> str:
    if not target.repository:
        raise ConfigError(
            "--build-image: the target has no 'repository'",
            code="MissingSetting",
            hint="name a repository there that the cluster can pull from",
        )
    return target.repository


def _lock(
    project: Project, target: Target, client_uri: str, progress: Progress
) -> locks.CachedLock | None:
    lock = locks.obtain(
        project.work_dir,
        project.environment_files,
        platforms.of_target(target),
        permissions.of_target(target),
        progress,
    )
    if lock and (warning := versions.client_warning(lock.mlflow, client_uri)):
        progress.say(warning)
    return lock


def _draft(
    project: Project,
    target: Target,
    experiment_id: str,
    tracking_uri: str,
    packed: files.Packed,
    lock: locks.CachedLock | None,
) -> Submission:
    """The Submission of a run that does not exist yet."""
    is_small = packed.archive.size_bytes <= IN_CONFIG_MAP_BYTES
    archive = f"{bundles.BUNDLE_DIR}/{snapshot.FILE_NAME}" if is_small else None
    artifact = None if is_small else f"code/{snapshot.FILE_NAME}"
    return Submission(
        run_id=UNKNOWN_RUN,
        experiment_id=str(experiment_id),
        tracking_uri=tracking_uri,
        command=projects.command(project, packed.placed),
        project_dir=manifest.PROJECT_DIR,
        scratch_dir=f"{manifest.WORK_DIR}/runner",
        cache_dir=manifest.CACHE_DIR,
        unpack_dir=os.path.dirname(manifest.PROJECT_DIR),
        archive=Archive(packed.archive.sha256, archive, artifact),
        keep_archive=archive,
        downloads=packed.downloads,
        environment=_environment(target, lock),
        cache_limit_bytes=manifest.cache_limit_bytes(target),
        phases=lock.phases if lock else (),
        secrets_dirs=(
            bundles.SECRETS_DIR,
            *([manifest.TARGET_SECRETS_DIR] if target.secret else []),
        ),
        termination_log=manifest.TERMINATION_LOG,
        stopped_means=Cause.TERMINATED,
        grace_period_s=manifest.grace_period_s(target),
        least_lifetime_s=manifest.LEAST_LIFETIME_S,
        retries=target.retries,
        retry_on=target.retry_on,
        mark=secrets.token_hex(8),
        credential_hosts=target.credential_hosts,
    )


def _environment(target: Target, lock: locks.CachedLock | None) -> Environment | None:
    if lock is None:
        return None
    packages = PACKAGES if target.stage_packages else None
    return lock.environment._replace(lock_dir=manifest.LOCK_DIR, packages=packages)


def _credentials(
    target: Target,
    docker: DockerEnv | None,
    settings: mlflow_settings.Settings,
    lock: locks.CachedLock | None,
) -> Mapping[str, bytes]:
    """The contents of the run's own Secret: inherited variables and, unless the target names a
    Secret, the user's login and the index logins.
    """
    values = {name: value.encode() for name, value in (docker.inherited if docker else {}).items()}
    if target.secret:
        return values
    values |= {name: value.encode() for name, value in settings.secret.items()}
    # staged packages need no login
    index = lock.secrets() if lock and not target.stage_packages else {}
    return values | {f"{name}.file": data for name, data in {**settings.files, **index}.items()}


def _with_docker(
    target: Target, docker: DockerEnv, config: BackendConfig, progress: Progress
) -> Target:
    """The target with image and variables of the docker_env; the run's backend_config overrides
    both.
    """
    if docker.volumes:
        progress.say(
            "docker_env volumes are folders of this machine, which the cluster does not have: "
            f"{', '.join(docker.volumes)}"
        )
    if config.build_image:
        _repository(target)
    suspects = sorted(
        name
        for name in docker.inherited
        if credentials.may_be_credential(name) and name not in target.allow_env
    )
    if suspects:
        names = ", ".join(suspects)
        raise ConfigError(
            f"MLproject, docker_env: asks for {names} of your environment, which may be "
            "credentials",
            code="MissingSetting",
            hint=f"to pass them to the pods, set 'allow_env: [{names}]' in the target, or "
            '"allow_env" in --backend-config',
        )
    if docker.inherited:
        progress.say(
            "the project takes variables of your environment: "
            f"{', '.join(sorted(docker.inherited))}"
        )
    variables = {name: manifest.literal(value) for name, value in docker.variables.items()}
    return target.model_copy(
        update={
            "image": config.overrides.get("image", docker.image),
            "env": {**target.env, **variables, **config.overrides.get("env", {})},
        }
    )
