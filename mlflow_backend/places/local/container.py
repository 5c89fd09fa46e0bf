"""A run in a container on this machine: the runner as its first process, everything under the paths
it has here.
"""

import os
import urllib.parse
from collections.abc import Iterable, Mapping
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
    """`docker run ... IMAGE`, with python3 in the place of the image's own entry point as in a pod;
    the runner's arguments go behind it.

    `variables` are names whose values the docker client takes from its environment, so that none is
    in a process list. `options` are those of `mlflow run --docker-args`.
    """
    mounts = [
        f"{project.work_dir}:{CODE_DIR}",
        f"{project.work_dir}:{project.work_dir}",
        f"{scratch}:{scratch}",
    ]
    mounts += [f"{path}:{path}:ro" for path in inputs if not path.is_relative_to(project.work_dir)]
    mounts += [
        f"{folder}:{folder}"
        for folder in dict.fromkeys(map(local_folder, (tracking_uri, artifact_uri)))
        if folder
    ]
    argv = [
        "docker",
        "run",
        "--rm",
        "--user",
        f"{os.getuid()}:{os.getgid()}",
        "--workdir",
        CODE_DIR,
        "--env",
        f"HOME={scratch}",
    ]
    if addresses.is_loopback(urllib.parse.urlsplit(tracking_uri).hostname or ""):
        argv += ["--network", "host"]
    for mount in (*mounts, *docker.volumes):
        argv += ["--volume", mount]
    for name in (*variables, *docker.variables, *docker.inherited):
        argv += ["--env", name]
    for name, value in options.items():
        dashes = "-" if len(name) == 1 else "--"
        argv += [f"{dashes}{name}"] if value is True else [f"{dashes}{name}", str(value)]
    return [*argv, "--entrypoint", "python3", docker.image]


def local_folder(uri: str) -> str | None:
    """The folder of this machine that a tracking or artifact URI means; None for a server."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "sqlite":
        return os.path.dirname(parts.path)
    if parts.scheme in ("", "file"):
        return os.path.abspath(urllib.parse.unquote(parts.path))
    return None


def why_not_started(docker: DockerEnv, code: int, told: str) -> str:
    """A sentence for a container whose runner never began; `told` is the docker client's last
    words.
    """
    last = told.strip().splitlines()[-1] if told.strip() else f"exit code {code}"
    if code in (126, 127):
        return (
            f"The image {docker.image} has no python3, which the runner needs ({last}): add it to "
            "the image."
        )
    return f"docker could not start the image {docker.image}: {last}"
