"""The few MLflow calls that the runner makes, over plain HTTP where possible, else through `mlflow`.

Importing mlflow costs 0.6 s of CPU and 76 MB (measured with 3.17), taken from the
user's command. So servers that speak MLflow's REST API and proxy artifacts
are called with the standard library; every other store (sqlite, S3, a request
auth plugin, ...) through MLflow's own client.
"""

import os
from typing import Dict, NamedTuple, Optional


class RunInfo(NamedTuple):
    """What the tracking server knows of a run."""

    status: str
    artifact_uri: str
    tags: Dict[str, str]


class Unavailable(Exception):
    """The server cannot be reached or is in trouble: the same call may succeed later."""


class Refused(Exception):
    """The server understood and said no (a wrong password)."""


class Missing(Refused):
    """The server has no such run or artifact."""


class NeedsMlflow(Exception):
    """Only MLflow's own client can do this, and this Python has none."""


def connect(tracking_uri: str, run_id: str):
    """The client for the run `run_id`: `rest.RestRun`, or `client.ClientRun` with the same methods.

    Raises Unavailable, Refused or NeedsMlflow.
    """
    if _plain_http(tracking_uri):
        from mlflow_runner.tracking.rest import RestRun

        run = RestRun(tracking_uri, run_id)
        if run.get().artifact_uri.startswith("mlflow-artifacts:/"):
            return run
    from mlflow_runner.tracking.client import ClientRun

    return ClientRun(tracking_uri, run_id)


def _plain_http(uri: str) -> bool:
    auth: Optional[str] = os.environ.get("MLFLOW_TRACKING_AUTH")
    special = [name for name in ("MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_WORKSPACE") if os.environ.get(name)]
    return uri.startswith(("http://", "https://")) and auth in (None, "", "kubernetes") and not special
