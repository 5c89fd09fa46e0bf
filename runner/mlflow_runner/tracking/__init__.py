"""The few MLflow calls that the runner makes, over plain HTTP where possible, otherwise through
`mlflow`.

Importing mlflow costs 0.6 s of CPU and 76 MB (measured with 3.17) that the user's command could
use. So the standard library calls servers that speak MLflow's REST API, and transfers artifacts
that they or another web server store; MLflow's own client serves every other store (sqlite, S3, a
request auth plugin, ...).
"""

import os
from typing import TYPE_CHECKING, Sequence, Union
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mlflow_runner.tracking.client import ClientRun
    from mlflow_runner.tracking.rest import RestRun

    RunClient = Union[RestRun, ClientRun]
    """The client for one run; both classes have the same methods."""

WEB_SCHEMES = ("mlflow-artifacts", "http", "https")
"""Of artifact locations on a web server."""


def connect(tracking_uri: str, run_id: str, credential_hosts: Sequence[str] = ()) -> "RunClient":
    """The client for the run `run_id`. Sends no request.

    Raises NeedsMlflow.
    """
    if _is_plain_http(tracking_uri):
        from mlflow_runner.tracking.rest import RestRun

        return RestRun(tracking_uri, run_id, credential_hosts=credential_hosts)
    from mlflow_runner.tracking.client import ClientRun

    return ClientRun(tracking_uri, run_id, credential_hosts=credential_hosts)


def connect_artifacts(
    tracking_uri: str, run_id: str, artifact_uri: str, credential_hosts: Sequence[str] = ()
) -> "RunClient":
    """The client for the artifacts of a run, which are at `artifact_uri`. Raises NeedsMlflow."""
    if _is_plain_http(tracking_uri) and urlsplit(artifact_uri).scheme in WEB_SCHEMES:
        from mlflow_runner.tracking.rest import RestRun

        return RestRun(tracking_uri, run_id, artifact_uri, credential_hosts)
    from mlflow_runner.tracking.client import ClientRun

    return ClientRun(tracking_uri, run_id, artifact_uri, credential_hosts)


def _is_plain_http(uri: str) -> bool:
    auth = os.environ.get("MLFLOW_TRACKING_AUTH", "")
    needs_client = os.environ.get("MLFLOW_TRACKING_AWS_SIGV4") or os.environ.get("MLFLOW_WORKSPACE")
    return (
        uri.startswith(("http://", "https://")) and auth in ("", "kubernetes") and not needs_client
    )
