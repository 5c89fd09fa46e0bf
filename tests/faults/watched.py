"""One fault, seen by three kinds of watcher: a waiting client, the controller alone, and no process
until a command looks.
"""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from mlflow.tracking import MlflowClient

from mlflow_backend.places.kubernetes import attach, runs, settle
from mlflow_backend.places.kubernetes.client.connect import connect
from mlflow_backend.places.kubernetes.look import look
from mlflow_backend.places.kubernetes.run import ClusterRun
from mlflow_backend.supervision.record import has_ended
from tests.bed.runs import Seen
from tests.bed.server import BIN

CLIENT, CONTROLLER, COMMAND = WATCHERS = (
    "client waiting",
    "controller",
    "no watcher, then a command",
)
HEADING = """# Faults

Written by `make test-faults` on a real cluster, on {date}, on a machine with {cores} cores (Linux {kernel}). Each fault was made for
one run per watcher. *Before*: the runner had told the end before the Job's own end; empty: the Job was removed by the watcher that ended
the run, or did not end by itself.
"""
LIMIT_S = 5.0
"""A run is to have its terminal state so soon after its Job's own end."""


@dataclass
class Watched:
    """One run and who watches it."""

    watcher: str
    run: ClusterRun
    namespace: str
    waiting: threading.Thread | None = None
    returned: bool | None = None

    @property
    def id(self) -> str:
        return self.run.run_id

    def pods(self, kubectl) -> list[dict]:
        listed = kubectl(
            "-n", self.namespace, "get", "pods", "-l", f"job-name={self.run.job_name}", "-o", "json"
        )
        return sorted(
            json.loads(listed)["items"], key=lambda pod: pod["metadata"]["creationTimestamp"]
        )

    def pod_name(self, kubectl) -> str:
        return self.pods(kubectl)[-1]["metadata"]["name"]


@dataclass
class Table:
    """What every case came to; written as Markdown when all are over."""

    rows: list[tuple] = field(default_factory=list)

    def add(self, fault: str, watcher: str, found: Seen, after_s: float | None) -> None:
        self.rows.append((fault, watcher, found.status, found.cause or "", after_s))

    def median_s(self) -> float:
        return statistics.median(
            row[4] for row in self.rows if row[4] is not None and row[1] != COMMAND
        )

    def write(self, path: Path) -> None:
        heading = HEADING.format(
            date=date.today().isoformat(), cores=os.cpu_count(), kernel=platform.release()
        )
        lines = [
            heading,
            "| fault | who watches | status | cause | seconds after the Job's end |",
            "| --- | --- | --- | --- | --- |",
        ]
        for fault, watcher, status, cause, after_s in self.rows:
            shown = "" if after_s is None else "before" if after_s <= 0 else f"{after_s:.1f}"
            lines.append(f"| {fault} | {watcher} | {status} | {cause} | {shown} |")
        path.write_text("\n".join(lines) + "\n")


class Ends:
    """When each Job was seen to end or to be deleted, by a watch of the tests' own: kubectl's,
    again and again.
    """

    FORMAT = '{.type} {.object.metadata.name} {.object.status.conditions[*].type}{"\\n"}'

    def __init__(self, kubectl: Sequence[str]):
        self.at: dict[str, float] = {}
        self._command = [
            *kubectl,
            "get",
            "jobs",
            "-A",
            "--watch",
            "--output-watch-events",
            "-o",
            f"jsonpath={self.FORMAT}",
        ]
        self._closed = False
        self._process = self._start()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        while self._thread.is_alive():  # it may just have started the next one
            self._process.kill()
            self._thread.join(0.5)

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def _follow(self) -> None:
        while not self._closed:
            for line in self._process.stdout:
                change, name, *conditions = line.split()
                if change == "DELETED" or {"Failed", "Complete"} & set(conditions):
                    self.at.setdefault(name, time.time())
            self._process.wait()
            time.sleep(0.2)  # the API server is one of the things that are made to fail
            if not self._closed:
                self._process = self._start()


def begin(watcher: str, run: ClusterRun, namespace: str) -> Watched:
    """Watch the run as `watcher` does."""
    watched = Watched(watcher, run, namespace)
    if watcher == CLIENT:

        def wait():
            watched.returned = run.wait()

        watched.waiting = threading.Thread(target=wait, daemon=True)
        watched.waiting.start()
    return watched


def finish(watched: Watched, timeout_s: float) -> Seen:
    """The run once its watcher has brought it to its end; without a watcher, once its Job is over
    and a command has looked.
    """
    deadline = time.monotonic() + timeout_s
    if watched.waiting:
        watched.waiting.join(timeout_s)
        assert not watched.waiting.is_alive(), "the client still waits"
    elif watched.watcher == COMMAND:
        _settle_when_over(watched, deadline)
    while not has_ended(runs.record_of(MlflowClient().get_run(watched.id))):
        assert time.monotonic() < deadline, (
            f"{watched.watcher}: the run is {Seen(watched.id).status}, {Seen(watched.id).cause}"
        )
        time.sleep(0.1)
    return Seen(watched.id)


def _settle_when_over(watched: Watched, deadline: float) -> None:
    """Leave the run alone until nothing of it moves any more, then look once, as `mlflow-compute
    settle RUN` does.
    """
    cluster = connect(None, watched.namespace)
    run = MlflowClient().get_run(watched.id)
    while True:
        with contextlib.suppress(Exception):
            verdict = settle.judge(runs.record_of(run), look(cluster, runs.record_of(run)))
            if verdict.ended:
                break
        assert time.monotonic() < deadline, "nothing in the cluster says that the run is over"
        time.sleep(0.5)
    time.sleep(1)
    attach.settle_now(MlflowClient().get_run(watched.id))


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [BIN / "mlflow-compute", *arguments], capture_output=True, text=True, timeout=120
    )
