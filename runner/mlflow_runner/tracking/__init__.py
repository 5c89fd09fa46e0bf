"""The few MLflow calls that the runner makes, over plain HTTP where possible, else through
`mlflow`.

Importing mlflow costs 0.6 s of CPU and 76 MB (measured with 3.17), taken from the
user's command. So servers that speak MLflow's REST API are called with the standard
library, and so are artifacts that they or another web server store; every other
store (sqlite, S3, a request auth plugin, ...) through MLflow's own client.
"""

import os
from typing import Optional, Sequence
from urllib.parse import urlsplit


def connect(tracking_uri: str, run_id: str, credential_hosts: Sequence[str] = ()):
    """The client for the run `run_id`: `rest.RestRun`, or `client.ClientRun` with the same methods.
    Nothing is asked yet.

    Raises NeedsMlflow.
    """
    if _plain_http(tracking_uri):
        from mlflow_runner.tracking.rest import RestRun

        return RestRun(tracking_uri, run_id, credential_hosts=credential_hosts)
    from mlflow_runner.tracking.client import ClientRun

    return ClientRun(tracking_uri, run_id, credential_hosts=credential_hosts)


def connect_artifacts(
    tracking_uri: str, run_id: str, artifact_uri: str, credential_hosts: Sequence[str] = ()
):
    """The client for the artifacts of a run, which lie at `artifact_uri`. Raises NeedsMlflow."""
    if _plain_http(tracking_uri) and urlsplit(artifact_uri).scheme in (
        "mlflow-artifacts",
        "http",
        "https",
    ):
        from mlflow_runner.tracking.rest import RestRun

        return RestRun(tracking_uri, run_id, artifact_uri, credential_hosts)
    from mlflow_runner.tracking.client import ClientRun

    return ClientRun(tracking_uri, run_id, artifact_uri, credential_hosts)


def _plain_http(uri: str) -> bool:
    auth: Optional[str] = os.environ.get("MLFLOW_TRACKING_AUTH")
    special = [
        name for name in ("MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_WORKSPACE") if os.environ.get(name)
    ]
    return (
        uri.startswith(("http://", "https://")) and auth in (None, "", "kubernetes") and not special
    )
