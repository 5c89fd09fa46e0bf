"""An MLflow server that can be stopped and started again."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow

BIN = Path(sys.executable).parent


class Server:
    """An MLflow tracking server of the tests' own, with its store in `directory`; it can be stopped
    and started again.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        directory = self.directory
        command = [str(BIN / "mlflow"), "server", "--host", "0.0.0.0", "--port", str(self.port), "--workers", "1",
                   "--allowed-hosts", "*", "--backend-store-uri", f"sqlite:///{directory}/mlflow.db",
                   "--artifacts-destination", f"{directory}/artifacts"]  # fmt: skip
        with open(directory / "log", "a") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=_clean_env()
            )
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((directory / "log").read_text()[-2000:]) from None
                time.sleep(0.2)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _clean_env() -> dict:
    return {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}


def use(uri: str, monkeypatch) -> None:
    mlflow.set_tracking_uri(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
