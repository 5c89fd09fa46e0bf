"""Send a project to a cluster: judge everything first, create the run, then what the run needs."""

import contextlib
import dataclasses
import functools
import os
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

from mlflow_backend import project as projects
from mlflow_backend import runner_zip, snapshot, tracking
from mlflow_backend.cluster import files, labels, manifest, shared_targets
from mlflow_backend.cluster.api import Cluster, connect
from mlflow_backend.cluster.observe import Observer
from mlflow_backend.cluster.run import ClusterRun
from mlflow_backend.cluster.wait import SubmittedJob
from mlflow_backend.config import lookup
from mlflow_backend.config.backend_config import BackendConfig
from mlflow_backend.config.target import Target
from mlflow_backend.docker import image as docker_image
from mlflow_backend.docker import spec as docker_spec
from mlflow_backend.docker.spec import DockerEnv
from mlflow_backend.environment import locks, platforms, staging
from mlflow_backend.errors import ComputeError, ConfigError, redact
from mlflow_backend.progress import Progress
from mlflow_backend.project import Project
from mlflow_runner.causes import Cause
from mlflow_runner.submission import (
    TAG_CLUSTER,
    TAG_CONTEXT,
    TAG_ENVIRONMENT,
    TAG_JOB,
    TAG_NAMESPACE,
    TAG_SNAPSHOT,
    TAG_SUBMITTED,
    TAG_TARGET,
    Archive,
    Submission,
)

IN_CONFIG_MAP_BYTES = 700 * 1024
"""A larger archive travels as an artifact of the run: an object in Kubernetes is at most 1 MiB, base64 included."""
PACKAGES = "environment/packages.tar"
"""The artifact of the run that holds staged packages."""
CLIENT = secrets.token_hex(4)
"""Labels the Jobs of this process, so that one watch sees them all and no others."""
UNKNOWN_RUN = "0" * 32
ACCEPTED_S = 300
"""For how long a target that the API server has accepted is not judged again by this process."""
_accepted_until: dict[tuple[Cluster, str, bool], float] = {}


def submit(config: BackendConfig, project: Project, experiment_id: str, client_uri: str, progress: Progress) -> ClusterRun:
    """Submit the run and return without waiting for it.

    Raises ComputeError; before the MLflow run is created nothing is left behind,
    after it the run is FAILED with its cause and what was created is removed.
    """
    found = lookup.find(config, shared_targets.load)
    target = found.target
    docker = docker_spec.read(project, os.environ)
    if docker:
        target = _with_docker(target, docker, config, progress)
    elif config.build_image:
        raise ConfigError("--build-image: the project has no docker_env; its environment needs no image of its own")
    if not target.image:
        raise ConfigError(f"target '{found.name}' ({found.source}): has no 'image': build one from runner/Dockerfile and name it there")
    uri = tracking.uri_for_pods(target.tracking_uri, client_uri, found.name, manifest.on_host_network(target))
    uri, settings = tracking.settings(os.environ, uri)
    cluster = connect(target.context, target.namespace)
    kept = None if docker else locks.obtain(project.work_dir, project.environment_files, platforms.of_target(target), progress)
    if kept and (warning := tracking.client_warning(kept.mlflow, client_uri)):
        progress.say(warning)
    with files.pack(project, kept, progress) as (taken, placed, downloads):
        if docker and config.build_image:
            target = target.model_copy(update={"image": docker_image.push(docker, taken, target.repository, config.docker_auth, progress)})
        small = taken.size_bytes <= IN_CONFIG_MAP_BYTES
        archive = f"{manifest.BUNDLE_DIR}/{snapshot.FILE_NAME}" if small else None
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
            and kept.environment._replace(lock_dir=manifest.LOCK_DIR, packages=PACKAGES if target.stage_packages else None),
            cache_limit_bytes=manifest.cache_limit_bytes(target),
            phases=kept.phases if kept else (),
            secrets_dir=manifest.SECRETS_DIR,
            termination_log=manifest.TERMINATION_LOG,
            stopped_means=Cause.TERMINATED,
            grace_period_s=manifest.grace_period_s(target),
            least_lifetime_s=manifest.LEAST_LIFETIME_S,
            retries=target.retries,
            retry_on=target.retry_on,
        )
        plan = _Plan(cluster, target, found.name, project, draft, settings, taken, kept)
        plan.check()
        run = tracking.create_run(project, experiment_id, tracking.given_run_id(os.environ, config.run_id))
        project.discard()
        return plan.send(run, client_uri, config.STREAM_OUTPUT, progress)


def _with_docker(target: Target, docker: DockerEnv, config: BackendConfig, progress: Progress) -> Target:
    """The target with image and variables of the docker_env; what the run's own backend_config says goes before it."""
    if docker.volumes:
        progress.say(f"docker_env volumes are folders of this machine and are not there in a cluster: {', '.join(docker.volumes)}")
    if config.build_image and not target.repository:
        raise ConfigError("--build-image: name a repository that the cluster can pull from: 'repository' in the target")
    image = config.overrides.get("image", docker.image)
    variables = {name: manifest.literal(value) for name, value in docker.variables.items()}
    return target.model_copy(update={"image": image, "env": {**target.env, **variables, **config.overrides.get("env", {})}})


@dataclasses.dataclass(frozen=True)
class _Plan:
    """All that is known before the run exists."""

    cluster: Cluster
    target: Target
    target_name: str
    project: Project
    draft: Submission
    settings: tracking.Settings
    taken: snapshot.Snapshot
    kept: locks.Kept | None
    unique: str = dataclasses.field(default_factory=lambda: secrets.token_hex(2))

    def check(self) -> None:
        """Have the API server judge what will be created, unless it did so for this target a moment ago."""
        kind = (self.cluster, self.target.model_dump_json(), bool(self.own_secret))
        if time.monotonic() > _accepted_until.get(kind, 0.0):
            with ThreadPoolExecutor(1) as beside:
                identified = beside.submit(self.cluster.identity)
                self.cluster.check(self.objects(UNKNOWN_RUN, self.draft.experiment_id, None))
                identified.result()
            _accepted_until[kind] = time.monotonic() + ACCEPTED_S

    def tags(self, run_id: str) -> dict[str, str]:
        """Known before the Job exists: an unfinished run without its Job can be told from them."""
        tags = {
            TAG_JOB: self.job_name(run_id),
            TAG_TARGET: self.target_name,
            TAG_CONTEXT: self.cluster.context,
            TAG_NAMESPACE: self.cluster.namespace,
            TAG_SNAPSHOT: self.draft.archive.sha256,
        }
        if cluster_id := self.cluster.identity():
            tags[TAG_CLUSTER] = cluster_id
        tags[TAG_SUBMITTED] = datetime.fromtimestamp(self.cluster.now_s(), timezone.utc).isoformat(timespec="seconds")
        if self.draft.environment:
            tags[TAG_ENVIRONMENT] = self.draft.environment.key
        return tags

    def objects(self, run_id: str, experiment_id: str, run_url: str | None) -> list[dict[str, Any]]:
        """ConfigMap, Job, and the Secret as far as it can be known before the Job exists."""
        name = self.job_name(run_id)
        bundle = self.bundle()
        own_secret = self.own_secret
        secret_name = name if own_secret else self.target.secret
        identity = manifest.Identity(name, self.project.name, _user(), CLIENT, self.target_name, run_url, redact(self.project.uri))
        submission = self.draft._replace(run_id=run_id, experiment_id=str(experiment_id))
        job = manifest.job(submission, self.target, identity, bundle["metadata"]["name"], secret_name, self.settings.plain)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        return [bundle, job, *([secret] if own_secret else [])]

    def job_name(self, run_id: str) -> str:
        return manifest.job_name(self.project.name, run_id, self.unique)

    @functools.cached_property
    def own_secret(self) -> Mapping[str, bytes]:
        """The credentials of the submitting user; none where the target names a Secret."""
        if self.target.secret:
            return {}
        values = {name: value.encode() for name, value in self.settings.secret.items()}
        return values | {f"{name}.file": content for name, content in {**self.settings.files, **self.index_secrets()}.items()}

    def index_secrets(self) -> Mapping[str, bytes]:
        """Logins of package indexes; a pod whose packages are staged needs none."""
        return self.kept.secrets() if self.kept and not self.target.stage_packages else {}

    def bundle(self) -> dict[str, Any]:
        small = self.draft.archive.path is not None
        return manifest.bundle(runner_zip.build(), self.taken.read() if small else None)

    def send(self, run: Any, client_uri: str, stream: bool, progress: Progress) -> ClusterRun:
        run_id = run.info.run_id
        url = tracking.run_url(client_uri, run.info.experiment_id, run_id)
        bundle, job, *_ = self.objects(run_id, run.info.experiment_id, url)
        own_bundle = None
        try:
            if self.draft.archive.artifact:
                progress.waiting(f"uploading the snapshot ({self.taken.size_bytes / 1e6:.1f} MB)")
                tracking.upload(run_id, self.taken.path, os.path.dirname(self.draft.archive.artifact))
            if self.kept and self.target.stage_packages:
                with staging.staged(self.kept, progress) as archive:
                    tracking.upload(run_id, archive, os.path.dirname(PACKAGES))
            with ThreadPoolExecutor(1) as beside:  # round trips side by side: server and cluster may be far
                tagged = beside.submit(tracking.tag, run_id, self.tags(run_id))
                own_bundle = self.cluster.create(bundle)
                tagged.result()
                created = self.cluster.create(job)
                scheduled = beside.submit(tracking.schedule, run_id)
                if values := self.own_secret:
                    self.cluster.create(manifest.secret(created, values))
                self.cluster.add_owner(bundle, manifest.owner(created))
                scheduled.result()
        except BaseException as error:
            with contextlib.suppress(ComputeError):
                self.cluster.delete_job(job["metadata"]["name"])
                if own_bundle:
                    self.cluster.take_back(own_bundle)
            tracking.fail(run_id, error)
            raise
        progress.say(f"submitted Job {job['metadata']['name']} to namespace {self.cluster.namespace} (context {self.cluster.context})")
        if url:
            progress.say(f"run {url}")
        observer = _observer(self.cluster)
        return ClusterRun(
            SubmittedJob(
                self.cluster, observer, self.job_name(run_id), run_id, stream, self.target.grace_period, self.target.start_timeout, progress
            )
        )


@functools.lru_cache(maxsize=16)
def _observer(cluster: Cluster) -> Observer:
    """The one Observer of this process for the cluster's namespace."""
    return Observer(cluster, f"{labels.CLIENT}={CLIENT}")


def _user() -> str:
    from mlflow.tracking.context.default_context import _get_user

    return _get_user()
