"""Runs as tests start them, wait for them and look at them afterwards."""

import json
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

HERE = {"USE_CONDA": False}
THERE = {"COMPUTE": "dev-cluster"}
TRAIN = """\
import sys, mlflow
print("alpha is", sys.argv[1])
with mlflow.start_run():
    mlflow.log_metric("loss", float(sys.argv[1]))
    mlflow.log_text("hello", "note.txt")
"""
UNTIL_TOLD = """\
import mlflow, os, time
while "told" not in mlflow.get_run(os.environ["MLFLOW_RUN_ID"]).data.tags:
    time.sleep(0.2)
print("out")
"""
"""A script that ends when its run has the tag `told`."""
LIST_PACKAGES = (
    "import importlib.metadata as m; print('HAS', sorted({d.name.lower() for d in "
    "m.distributions()}))"
)


def run_here(uri, config=HERE, **keywords):
    return mlflow.projects.run(str(uri), backend="compute", backend_config=dict(config), **keywords)


def failed_run_here(uri, last_run, config=HERE, **keywords):
    with pytest.raises(ExecutionException):
        run_here(uri, config, **keywords)
    return last_run()


def run_there(uri, config=THERE, **keywords):
    return run_here(uri, config, **keywords)


def failed_run_there(uri, last_run, config=THERE, **keywords):
    with pytest.raises(ExecutionException):
        run_there(uri, config, **keywords)
    return last_run()


def job_of(kubectl, found):
    return json.loads(kubectl("get", "job", found.tags["compute.job"], "-o", "json"))


def wait_for(condition, timeout_s=120):
    """Until `condition()` holds.

    The limit is for what never comes, far above what a slow machine takes.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


class Seen:
    """A run with its artifacts: `log` is all its log parts joined."""

    def __init__(self, run_id: str):
        self._client = MlflowClient()
        self.run = self._client.get_run(run_id)
        self.status = self.run.info.status
        self.tags, self.params, self.metrics = (
            self.run.data.tags,
            self.run.data.params,
            self.run.data.metrics,
        )
        self.cause = self.tags.get("compute.cause")

    def artifact(self, path: str) -> bytes:
        return Path(self._client.download_artifacts(self.run.info.run_id, path)).read_bytes()

    def artifacts(self, path: str) -> list[str]:
        return [item.path for item in self._client.list_artifacts(self.run.info.run_id, path)]

    @property
    def log(self) -> bytes:
        return b"".join(self.artifact(path) for path in sorted(self.artifacts("logs")))
