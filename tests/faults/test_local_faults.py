"""Runs on this machine whose reporter cannot report: they end all the same, with the client's own
login.
"""

import os
import signal
from pathlib import Path

import pytest

from tests.bed.proxy import Proxy
from tests.bed.runs import HERE, Seen, run_here, wait_for

WATCHER = "client waiting"


@pytest.fixture
def local(server, monkeypatch, project, table):
    """Start a run here by a way that can refuse its reporter, and check its end."""
    way = Proxy(server.port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{way.port}")
    import mlflow

    mlflow.set_tracking_uri(f"http://127.0.0.1:{way.port}")

    def start(command):
        return run_here(project(command), HERE, synchronous=False)

    def check(fault, run, status, cause):
        finished = run.wait()
        found = Seen(run.run_id)
        table.add(fault, WATCHER, found, None)
        assert (found.status, found.cause, finished) == (status, cause, status == "FINISHED")
        run.cancel()  # late: changes nothing
        assert run.wait() is finished and (Seen(run.run_id).status, Seen(run.run_id).cause) == (
            status,
            cause,
        )

    yield way, start, check
    way.close()


@pytest.mark.parametrize("command", ["sleep 600", "true"])
def test_a_run_here_whose_reporter_is_refused(local, command):
    way, start, check = local
    way.runner = "refuse"
    check(f"run here, reporter refused ({command})", start(command), "FAILED", "TrackingError")


def test_a_run_here_whose_reporter_is_killed_again_and_again(local):
    _way, start, check = local
    run = start("echo begun; sleep 5; exit 3")
    wait_for(lambda: Seen(run.run_id).status == "RUNNING")
    for _ in range(2):
        for pid in reporters():
            os.kill(pid, signal.SIGKILL)
    check("run here, reporter killed", run, "FAILED", "ExitCode")


def test_a_run_here_whose_server_is_away_at_its_end(local):
    way, start, check = local
    run = start("echo begun; sleep 3; exit 3")
    wait_for(lambda: Seen(run.run_id).status == "RUNNING")
    way.runner = "cut"
    check("run here, its reporter is cut off", run, "FAILED", "ExitCode")


def reporters():
    """The pids of the reporters that this process's runs have."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"report" in words and any(word.endswith(b"runner.pyz") for word in words):
            found.append(int(folder.name))
    return found
