"""Whether an MLflow client of a version suits the tracking server."""

import re

from mlflow_backend import mlflow_internals

VERSION_S = 5.0
"""How long the server's answer is waited for."""


def client_warning(version: str | None, uri: str) -> str | None:
    """A sentence where an MLflow client of `version` may not be understood by the server at `uri`.

    A server must not be older than its clients; it is asked only when the version is not this
    client's own.
    """
    from mlflow.version import VERSION

    if version in (None, VERSION) or not uri.startswith(("http://", "https://")):
        return None
    server = _server_version(uri)
    if server is None or _minor(version) <= _minor(server):
        return None
    return (
        f"the environment has mlflow {version}, newer than the tracking server's {server}: what it "
        f"logs may be refused; list mlflow<={server} instead"
    )


def _server_version(uri: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        response = mlflow_internals.get(uri, "/version", VERSION_S)
    except MlflowException:
        return None  # whether it can be reached is found out, and said, when the run is created
    text = response.text.strip()
    return text if response.ok and re.match(r"\d+\.\d+", text) else None


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
