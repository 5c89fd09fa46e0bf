"""A run in a container on this machine: the runner is its first process, and all folders have the
same paths inside as outside.
"""

import os
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlflow_backend import addresses
from mlflow_backend.request.docker_env import CODE_DIR, DockerEnv
from mlflow_backend.request.project import Project


def command(
    docker: DockerEnv,
    project: Project,
    scratch: Path,
    inputs: Iterable[Path],
    tracking_uri: str,
    artifact_uri: str,
    variables: Iterable[str],
    options: Mapping[str, str | bool],
) -> list[str]:
    """`docker run ... IMAGE` with the entry point python3, as in a pod; the runner's arguments
    follow it.

    `variables` are names whose values the docker client reads from its environment, so that none is
    in a process list. `options` are those of `mlflow run --docker-args`.
    """
    argv = ["docker", "run", "--rm", "--user", f"{os.getuid()}:{os.getgid()}"]
    argv += ["--workdir", CODE_DIR, "--env", f"HOME={scratch}"]
    if addresses.is_loopback(urllib.parse.urlsplit(tracking_uri).hostname or ""):
        argv += ["--network", "host"]
    for mount in (
        *_code_mounts(project, scratch, inputs),
        *_store_mounts(tracking_uri, artifact_uri),
        *docker.volumes,
    ):
        argv += ["--volume", mount]
    for name in (*variables, *docker.variables, *docker.inherited):
        argv += ["--env", name]
    for name, value in options.items():
        dashes = "-" if len(name) == 1 else "--"
        argv += [f"{dashes}{name}"] if value is True else [f"{dashes}{name}", str(value)]
    return [*argv, "--entrypoint", "python3", docker.image]


def _code_mounts(project: Project, scratch: Path, inputs: Iterable[Path]) -> Iterator[str]:
    yield f"{project.work_dir}:{CODE_DIR}"
    yield f"{project.work_dir}:{project.work_dir}"
    yield f"{scratch}:{scratch}"
    for path in inputs:
        if not path.is_relative_to(project.work_dir):
            yield f"{path}:{path}:ro"


def _store_mounts(tracking_uri: str, artifact_uri: str) -> Iterator[str]:
    for folder in dict.fromkeys(map(local_folder, (tracking_uri, artifact_uri))):
        if folder:
            yield f"{folder}:{folder}"


def local_folder(uri: str) -> str | None:
    """The folder of this machine that a tracking or artifact URI names; None for a server."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "sqlite":
        return os.path.dirname(parts.path)
    if parts.scheme in ("", "file"):
        return os.path.abspath(urllib.parse.unquote(parts.path))
    return None


def why_not_started(docker: DockerEnv, code: int, output: str) -> str:
    """A sentence for a container whose runner did not start; `output` is the end of the docker
    client's.
    """
    last = output.strip().splitlines()[-1] if output.strip() else f"exit code {code}"
    if code in (126, 127):
        return (
            f"The image {docker.image} has no python3, which the runner needs ({last}): add it to "
            "the image."
        )
    return f"docker could not start the image {docker.image}: {last}"
