"""Send a project to a cluster: judge everything first, create the run, then what the run needs."""

import dataclasses
import functools
import os
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow_backend import credentials, mlflow_internals
from mlflow_backend.environment import locks, permissions, platforms, staging
from mlflow_backend.errors import ConfigError, redact
from mlflow_backend.files import snapshot
from mlflow_backend.files.listing import Limits
from mlflow_backend.places import runner_zip
from mlflow_backend.places.kubernetes import files, shared_targets
from mlflow_backend.places.kubernetes import image as docker_image
from mlflow_backend.places.kubernetes.client.api import Cluster, connect
from mlflow_backend.places.kubernetes.client.observe import Observer
from mlflow_backend.places.kubernetes.create import Creation
from mlflow_backend.places.kubernetes.objects import bundle as bundles
from mlflow_backend.places.kubernetes.objects import labels, manifest
from mlflow_backend.places.kubernetes.ownership import Claim
from mlflow_backend.places.kubernetes.run import ClusterRun
from mlflow_backend.places.kubernetes.wait import SubmittedJob
from mlflow_backend.progress import Progress
from mlflow_backend.request import command_line
from mlflow_backend.request import docker_env as docker_spec
from mlflow_backend.request import project as projects
from mlflow_backend.request.backend_config import BackendConfig
from mlflow_backend.request.docker_env import DockerEnv
from mlflow_backend.request.project import Project
from mlflow_backend.targets import lookup
from mlflow_backend.targets.target import Target
from mlflow_backend.tracking import runs as mlflow_runs
from mlflow_backend.tracking import settings as mlflow_settings
from mlflow_backend.tracking import uris, versions
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.submission import Archive, Submission
from mlflow_runner.contract.tags import (
    TAG_CONTEXT,
    TAG_ENVIRONMENT,
    TAG_NAMESPACE,
    TAG_SNAPSHOT,
    TAG_TARGET,
)

IN_CONFIG_MAP_BYTES = 256 * 1024
"""A larger archive travels as an artifact of the run: each run has a ConfigMap of its own, and etcd
holds a few gigabytes in all.
"""
PACKAGES = "environment/packages.tar"
"""The artifact of the run that holds staged packages."""
CLIENT = secrets.token_hex(4)
"""Labels the Jobs of this process, so that one watch sees them all and no others."""
UNKNOWN_RUN = "0" * 32
ACCEPTED_S = 300
"""For how long a target that the API server has accepted is not judged again by this process."""
_accepted_until: dict[tuple[Any, ...], float] = {}


def submit(
    config: BackendConfig, project: Project, experiment_id: str, client_uri: str, progress: Progress
) -> ClusterRun:
    """Submit the run and return without waiting for it.

    Raises ComputeError; before the MLflow run is created nothing is left behind,
    after it the run is FAILED with its cause and what was created is removed.
    """
    found = lookup.find(
        str(config.COMPUTE), config.overrides, shared_targets.load, project.work_dir, progress.say
    )
    target = found.target
    docker = docker_spec.read(project, os.environ)
    if docker:
        target = _with_docker(target, docker, config, progress)
    elif config.build_image:
        raise ConfigError(
            "--build-image: the project has no docker_env; its environment needs no image of its "
            "own"
        )
    if not target.image:
        raise ConfigError(
            f"target '{found.name}' ({found.source}): has no 'image': build one from "
            "runner/Dockerfile and name it there"
        )
    uri = uris.for_pods(
        target.tracking_uri, client_uri, found.name, manifest.on_host_network(target)
    )
    uri, settings = mlflow_settings.forwarded(os.environ, uri)
    cluster = connect(target.context, target.namespace)
    kept = None
    if not docker:
        place = platforms.of_target(target), permissions.of_target(target)
        kept = locks.obtain(project.work_dir, project.environment_files, *place, progress)
    if kept and (warning := versions.client_warning(kept.mlflow, client_uri)):
        progress.say(warning)
    with files.pack(
        project, kept, Limits(target.snapshot_files, target.snapshot_bytes), progress
    ) as (taken, placed, downloads):
        if docker and config.build_image:
            target = target.model_copy(
                update={
                    "image": docker_image.push(
                        docker, taken, target.repository, config.docker_auth, progress
                    )
                }
            )
        small = taken.size_bytes <= IN_CONFIG_MAP_BYTES
        archive = f"{bundles.BUNDLE_DIR}/{snapshot.FILE_NAME}" if small else None
        inherited = docker.inherited if docker else {}
        draft = Submission(
            run_id=UNKNOWN_RUN,
            experiment_id=experiment_id,
            tracking_uri=uri,
            command=projects.command(project, placed),
            project_dir=manifest.PROJECT_DIR,
            scratch_dir=f"{manifest.WORK_DIR}/runner",
            cache_dir=manifest.CACHE_DIR,
            unpack_dir=os.path.dirname(manifest.PROJECT_DIR),
            archive=Archive(taken.sha256, archive, None if small else f"code/{snapshot.FILE_NAME}"),
            keep_archive=archive,
            downloads=downloads,
            environment=kept
            and kept.environment._replace(
                lock_dir=manifest.LOCK_DIR, packages=PACKAGES if target.stage_packages else None
            ),
            cache_limit_bytes=manifest.cache_limit_bytes(target),
            phases=kept.phases if kept else (),
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
        plan = _Plan(cluster, target, found.name, project, draft, settings, inherited, taken, kept)
        plan.check()
        run = mlflow_runs.create_run(
            project, experiment_id, command_line.given_run_id(config.RUN_ID)
        )
        try:
            project.discard()
            return plan.send(run, client_uri, config.STREAM_OUTPUT, progress)
        except BaseException as error:
            mlflow_runs.fail(run.info.run_id, error)
            raise


def _with_docker(
    target: Target, docker: DockerEnv, config: BackendConfig, progress: Progress
) -> Target:
    """The target with image and variables of the docker_env; the run's own backend_config overrides
    both.
    """
    if docker.volumes:
        progress.say(
            "docker_env volumes are folders of this machine and are not there in a cluster: "
            f"{', '.join(docker.volumes)}"
        )
    if config.build_image and not target.repository:
        raise ConfigError(
            "--build-image: name a repository that the cluster can pull from: 'repository' in the "
            "target"
        )
    refused = sorted(
        name
        for name in docker.inherited
        if credentials.may_be_credential(name) and name not in target.allow_env
    )
    if refused:
        raise ConfigError(
            f"MLproject, docker_env: asks for {', '.join(refused)} of your environment, which may "
            "be credentials: if its pods are to have them, set 'allow_env: "
            f'[{", ".join(refused)}]\' in the target, or "allow_env" in --backend-config'
        )
    if docker.inherited:
        progress.say(
            "the project takes variables of your environment: "
            f"{', '.join(sorted(docker.inherited))}"
        )
    image = config.overrides.get("image", docker.image)
    variables = {name: manifest.literal(value) for name, value in docker.variables.items()}
    return target.model_copy(
        update={
            "image": image,
            "env": {**target.env, **variables, **config.overrides.get("env", {})},
        }
    )


@dataclasses.dataclass(frozen=True)
class _Plan:
    """All that is known before the run exists."""

    cluster: Cluster
    target: Target
    target_name: str
    project: Project
    draft: Submission
    settings: mlflow_settings.Settings
    inherited: Mapping[str, str]
    taken: snapshot.Snapshot
    kept: locks.Kept | None
    unique: str = dataclasses.field(
        default_factory=lambda: secrets.token_hex(manifest.UNIQUE_BYTES)
    )
    nonce: bytes = dataclasses.field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def check(self) -> None:
        """Have the API server judge what will be created, unless it did so for this target a moment
        ago.
        """
        bundle = self.bundle(UNKNOWN_RUN, self.draft.experiment_id)
        kind = (
            self.cluster,
            self.target.model_dump_json(),
            bool(bundle.secret),
            self.draft.experiment_id,
        )
        if time.monotonic() <= _accepted_until.get(kind, 0.0):
            return
        job = self.job(UNKNOWN_RUN, bundle, None)
        with ThreadPoolExecutor(2) as beside:
            identified = beside.submit(self.cluster.identity)
            root = beside.submit(mlflow_runs.artifact_root, self.draft.experiment_id)
            self.cluster.check(
                [
                    job,
                    *filter(None, (manifest.config_map(job, bundle), manifest.secret(job, bundle))),
                ]
            )
            identified.result()
            # a shared folder may be mounted there
            if not (self.target.pod_template.get("spec") or {}).get("volumes"):
                mlflow_runs.check_artifact_root(root.result(), self.draft.experiment_id)
        _accepted_until[kind] = time.monotonic() + ACCEPTED_S

    def tags(self) -> dict[str, str]:
        """What is known of the run's place before its Job exists."""
        tags = {
            TAG_TARGET: self.target_name,
            TAG_CONTEXT: self.cluster.context,
            TAG_NAMESPACE: self.cluster.namespace,
            TAG_SNAPSHOT: self.draft.archive.sha256,
        }
        if self.draft.environment:
            tags[TAG_ENVIRONMENT] = self.draft.environment.key
        return tags

    def bundle(self, run_id: str, experiment_id: str) -> bundles.Bundle:
        archive = self.taken.read() if self.draft.archive.path else None
        submission = self.draft._replace(run_id=run_id, experiment_id=str(experiment_id))
        texts = (
            submission.tracking_uri,
            submission.command,
            *(item.uri for item in submission.downloads),
        )
        is_secret = any(map(credentials.has_credential, texts))
        return bundles.make(
            runner_zip.build(),
            submission,
            archive,
            self.credentials,
            is_secret,
            self.nonce,
            manifest.WORK_DIR,
        )

    def job(self, run_id: str, bundle: bundles.Bundle, run_url: str | None) -> dict[str, Any]:
        name = manifest.job_name(self.project.name, run_id, self.unique)
        identity = manifest.Identity(
            name,
            self.project.name,
            mlflow_internals.user(),
            CLIENT,
            self.target_name,
            run_url,
            redact(self.project.uri),
        )
        submission = self.draft._replace(run_id=run_id)
        return manifest.job(submission, self.target, identity, bundle, self.settings.plain)

    @functools.cached_property
    def credentials(self) -> Mapping[str, bytes]:
        """What the run's own Secret holds: the user's login and the index logins, unless the target
        names a Secret, and inherited variables.
        """
        values = {name: value.encode() for name, value in self.inherited.items()}
        if self.target.secret:
            return values
        values |= {name: value.encode() for name, value in self.settings.secret.items()}
        # staged packages need no login
        index = self.kept.secrets() if self.kept and not self.target.stage_packages else {}
        return values | {
            f"{name}.file": content for name, content in {**self.settings.files, **index}.items()
        }

    def send(self, run: Any, client_uri: str, stream: bool, progress: Progress) -> ClusterRun:
        run_id = run.info.run_id
        url = uris.run_url(client_uri, run.info.experiment_id, run_id)
        bundle = self.bundle(run_id, run.info.experiment_id)
        job = self.job(run_id, bundle, url)
        self._upload(run_id, progress)
        creation = Creation(self.cluster, run_id, job, bundle, self.tags())
        created = creation.create()
        try:
            return self._created(created, run_id, url, stream, progress)
        except BaseException:
            creation.undo(created)
            raise

    def _created(
        self, job: Mapping[str, Any], run_id: str, url: str | None, stream: bool, progress: Progress
    ) -> ClusterRun:
        name = job["metadata"]["name"]
        progress.say(
            f"submitted Job {name} to namespace {self.cluster.namespace} (context "
            f"{self.cluster.context})"
        )
        if url:
            progress.say(f"run {url}")
        claim = Claim(name, job["metadata"]["uid"], self.cluster.identity())
        return ClusterRun(
            SubmittedJob(
                self.cluster,
                Observer(self.cluster, labels.CLIENT, CLIENT),
                claim,
                run_id,
                self.draft.mark,
                stream,
                self.target.grace_period,
                self.target.start_timeout,
                progress,
            )
        )

    def _upload(self, run_id: str, progress: Progress) -> None:
        """Upload what is too large for a ConfigMap."""
        if self.draft.archive.artifact:
            progress.waiting(f"uploading the snapshot ({self.taken.size_bytes / 1e6:.1f} MB)")
            mlflow_runs.upload(
                run_id, self.taken.path, os.path.dirname(self.draft.archive.artifact)
            )
        if self.kept and self.target.stage_packages:
            with staging.staged(self.kept, progress) as archive:
                mlflow_runs.upload(run_id, archive, os.path.dirname(PACKAGES))
