"""Daemons by name: started once, known by a pid file that holds the program too, stopped by that
pid only.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.debian.paths import BIN, DOCKER_HOST, KUBECONFIG, LOG, RUN


def start(name: str, *command: str) -> None:
    if alive(name):
        return
    RUN.mkdir(parents=True, exist_ok=True)
    LOG.mkdir(parents=True, exist_ok=True)
    env = dict(
        os.environ,
        DOCKER_HOST=DOCKER_HOST,
        KUBECONFIG=str(KUBECONFIG),
        PATH=f"{BIN}:{os.environ['PATH']}",
    )
    with open(LOG / f"{name}.log", "a") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
        )
    (RUN / f"{name}.pid").write_text(f"{process.pid} {Path(command[0]).name}")


def alive(name: str) -> int | None:
    """The pid, if the process of that pid still runs the program that was started."""
    try:
        pid, program = (RUN / f"{name}.pid").read_text().split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return int(pid) if program in command else None


def stop(name: str) -> None:
    pid = alive(name)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    for _ in range(100):
        if alive(name) is None:
            break
        time.sleep(0.1)
    else:
        os.kill(pid, signal.SIGKILL)
    (RUN / f"{name}.pid").unlink(missing_ok=True)


def await_success(
    what: str,
    *command: str,
    check: Callable[[str], bool] = lambda output: True,
    timeout_s: float = 90,
) -> None:
    """Wait until the command succeeds with an output that passes `check`."""
    deadline = time.monotonic() + timeout_s
    env = dict(os.environ, KUBECONFIG=str(KUBECONFIG))
    while True:
        result = subprocess.run(command, capture_output=True, text=True, env=env)
        if result.returncode == 0 and check(result.stdout):
            return
        if time.monotonic() > deadline:
            raise SystemExit(
                f"cluster: {what} did not get ready; see {LOG}\n{result.stderr[-500:]}"
            )
        time.sleep(0.3)
