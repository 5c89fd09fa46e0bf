"""Whether a version of MLflow's client works with the tracking server."""

import re

from mlflow_backend import mlflow_internals
from mlflow_backend.tracking.uris import is_http

VERSION_S = 5.0
"""How long to wait for the server's version."""


def client_warning(version: str | None, uri: str) -> str | None:
    """A warning if the server at `uri` may not understand MLflow's client of `version`, else None.

    A server must not be older than its clients. The server is asked only for a version other than
    this client's own.
    """
    from mlflow.version import VERSION

    if version in (None, VERSION) or not is_http(uri):
        return None
    server = _server_version(uri)
    if server is None or _minor(version) <= _minor(server):
        return None
    return (
        f"the environment has mlflow {version}, newer than the tracking server's {server}: the "
        f"server may reject its calls; list mlflow<={server} instead"
    )


def _server_version(uri: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        response = mlflow_internals.get(uri, "/version", VERSION_S)
    except MlflowException:
        return None  # creating the run reports an outage
    text = response.text.strip()
    return text if response.ok and re.match(r"\d+\.\d+", text) else None


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
