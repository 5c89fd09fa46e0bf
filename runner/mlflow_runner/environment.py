"""Make a Python environment of pip packages with uv, once per key and cache folder."""

import contextlib
import fcntl
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Callable

from mlflow_runner.errors import RunnerError
from mlflow_runner.submission import Environment
from mlflow_runner.supervise import Supervisor

CAUSE = "EnvironmentError"
MARKER = ".complete"
SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""What the image trusts, a company's own authority included; uv by itself trusts the public ones only."""


def prefix(environment: Environment, cache_dir: str) -> Path:
    """Where the environment lies on this machine; scripts in it hold this path, so it never moves."""
    return Path(cache_dir) / "environments" / f"{sys.platform}-{platform.machine()}" / environment.key


def is_ready(environment: Environment, cache_dir: str) -> bool:
    return (prefix(environment, cache_dir) / MARKER).exists()


def realise(environment: Environment, cache_dir: str, supervisor: Supervisor, say: Callable[[str], None], project_dir: str) -> None:
    """Make the environment unless it is there.

    Of several runs that need it at once, one makes it and the others wait. The
    marker file is written last: without it whatever is there is made anew.
    Raises RunnerError when uv is missing or fails.
    """
    uv = find_uv()
    root = prefix(environment, cache_dir)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _locked(root.with_suffix(".lock"), say):
            if (root / MARKER).exists():
                return
            say(f"environment {environment.key[:12]}: installing {len(environment.packages)} listed packages with uv")
            shutil.rmtree(root, ignore_errors=True)
            python = ["--python", environment.python] if environment.python else ["--python", sys.executable]
            env = dict(os.environ, UV_CACHE_DIR=os.environ.get("UV_CACHE_DIR", str(Path(cache_dir) / "uv")))
            env.pop("VIRTUAL_ENV", None)
            if os.path.exists(SYSTEM_CERTIFICATES):
                env.setdefault("SSL_CERT_FILE", SYSTEM_CERTIFICATES)
            run = lambda *argv: supervisor.run([uv, *argv], project_dir, env).code  # noqa: E731
            if run("venv", "--quiet", "--no-project", "--no-config", *python, str(root)):
                wanted = environment.python or "this Python"
                raise RunnerError(CAUSE, f"An environment with Python {wanted} could not be made: see uv's lines in the log.")
            requirements = root / "requirements.txt"
            requirements.write_text("".join(f"{package}\n" for package in environment.packages))
            if run("pip", "install", "--quiet", "--python", str(root / "bin" / "python"), "--requirement", str(requirements)):
                raise RunnerError(CAUSE, "The project's packages could not be installed: see uv's lines in the log.")
            (root / MARKER).touch()
            say(f"environment {environment.key[:12]}: ready")
    except OSError as error:
        raise RunnerError(CAUSE, f"The environment could not be made in {cache_dir}: {error}.") from None


def find_uv() -> str:
    """The uv beside this Python, else the first on PATH. Raises RunnerError when there is none."""
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    found = beside if os.access(beside, os.X_OK) else shutil.which("uv")
    if not found:
        raise RunnerError(
            CAUSE, "The project lists packages, and there is no uv here to install them: build the image from runner/Dockerfile."
        )
    return found


@contextlib.contextmanager
def _locked(path, say):
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run that is making the same environment")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
