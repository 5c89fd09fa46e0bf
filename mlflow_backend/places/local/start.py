"""Start the runner: in a child process, or as the first process of a container."""

import functools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mlflow_backend.environment import locks
from mlflow_backend.environment.indexes import index_settings
from mlflow_backend.places import runner_zip
from mlflow_backend.places.local import container as docker_run
from mlflow_backend.places.local.end import WhyNotStarted
from mlflow_backend.request import project as projects
from mlflow_backend.request.backend_config import BackendConfig
from mlflow_backend.request.docker_env import DockerEnv
from mlflow_backend.request.project import Project
from mlflow_backend.tracking import settings as mlflow_settings
from mlflow_runner.contract.submission import Submission
from mlflow_runner.processes.program import ISOLATED


class Launch(NamedTuple):
    """How the runner is started: the command that its arguments are appended to, and variables in
    addition to those of this process.
    """

    prefix: list[str]
    variables: Mapping[str, str]
    stderr: int | None = None
    why_not_started: WhyNotStarted | None = None


def in_container(
    docker: DockerEnv,
    project: Project,
    submission: Submission,
    artifact_uri: str,
    config: BackendConfig,
    credentials: Mapping[str, str],
) -> Launch:
    """The launch in a container of the project's docker_env."""
    inputs = [
        parameter.local
        for parameter in projects.file_parameters(project, confined=True)
        if parameter.local
    ]
    settings = mlflow_settings.collect(os.environ, submission.tracking_uri)[1]
    scratch = Path(submission.scratch_dir)
    files = {
        name: _private_file(scratch / name.lower(), content)
        for name, content in settings.files.items()
    }
    variables = {**settings.plain, **settings.secret, **files, **credentials}
    prefix = docker_run.command(
        docker, project, scratch, inputs, submission.tracking_uri, artifact_uri,
        [*variables, "MLFLOW_COMPUTE_NODE", "MLFLOW_COMPUTE_IMAGE"], config.docker_args,
    )  # fmt: skip
    return Launch(
        prefix,
        {**variables, **docker.variables, **docker.inherited, "MLFLOW_COMPUTE_IMAGE": docker.image},
        subprocess.STDOUT,
        functools.partial(docker_run.why_not_started, docker),
    )


def access(lock: locks.CachedLock, scratch: Path) -> dict[str, str]:
    """Variables with which the runner reaches package indexes; logins are in files that only this
    user can read.
    """
    variables = {
        name: _private_file(scratch / name.lower(), content)
        for name, content in lock.secrets().items()
    }
    if bundle := index_settings.own_ca_bundle():
        variables["SSL_CERT_FILE"] = bundle
    return variables


def _private_file(path: Path, content: bytes) -> str:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return str(path)


def start(submission: Submission, launch: Launch) -> subprocess.Popen[bytes]:
    """Start the runner of a run; its standard output is a pipe."""
    scratch = Path(submission.scratch_dir)
    runner, text = scratch / "runner.pyz", scratch / "run.json"
    runner.write_bytes(runner_zip.build())
    text.write_text(submission.to_json())
    # `python` is this one, whether or not its environment is activated
    here = os.path.dirname(sys.executable)
    env = {
        **os.environ,
        **launch.variables,
        "PATH": here + os.pathsep + os.environ.get("PATH", os.defpath),
        "MLFLOW_COMPUTE_NODE": socket.gethostname(),
    }
    if env.get("MPLBACKEND", "").startswith("module://"):
        del env["MPLBACKEND"]  # a notebook's, which the project's environment may lack
    return subprocess.Popen(
        [*launch.prefix, ISOLATED, str(runner), "run", str(text)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=launch.stderr,
        env=env,
        start_new_session=True,  # only this process passes Ctrl-C on
    )
