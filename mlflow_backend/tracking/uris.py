"""Tracking URIs: their credentials, the URI that a pod uses, and the pages of MLflow's UI."""

import os
import re
import urllib.parse
from pathlib import Path

from mlflow_backend import addresses
from mlflow_backend.errors import TrackingError


def is_http(uri: str) -> bool:
    """Whether the URI is that of a tracking server, not of a file, a database or a provider."""
    return uri.startswith(("http://", "https://"))


def split_credentials(uri: str) -> tuple[str, dict[str, str]]:
    """The URI without user and password, and both as the variables that MLflow's client reads."""
    parsed = urllib.parse.urlsplit(uri)
    if parsed.scheme not in ("http", "https") or not parsed.username:
        return uri, {}
    plain = urllib.parse.urlunsplit(parsed._replace(netloc=parsed.netloc.rpartition("@")[2]))
    return plain, {
        "MLFLOW_TRACKING_USERNAME": urllib.parse.unquote(parsed.username),
        "MLFLOW_TRACKING_PASSWORD": urllib.parse.unquote(parsed.password or ""),
    }


def resolve_for_pods(
    target_uri: str | None, client_uri: str, target: str, on_host_network: bool
) -> str:
    """The tracking URI that a pod uses: the target's, else the client's.

    Raises TrackingError when a pod cannot reach it: a file, a database of this machine, or
    localhost (unless the pods use the host's network).
    """
    uri = target_uri or client_uri
    parsed = urllib.parse.urlsplit(uri)
    host = parsed.hostname or ""
    remote = parsed.scheme in ("http", "https") and (
        on_host_network or not addresses.is_of_this_machine(host)
    )
    if remote or parsed.scheme.startswith(("databricks", "postgresql", "mysql", "mssql")):
        return uri
    raise TrackingError(
        f"tracking URI {uri}: a pod of target '{target}' cannot reach it",
        code="TrackingUnreachable",
        hint="set MLFLOW_TRACKING_URI to a server's address that is valid in the cluster, or "
        "'tracking_uri' in the targets file",
    )


def make_absolute(client_uri: str) -> str:
    """The tracking URI with an absolute path, as the command runs in another folder: the
    project's.
    """
    relative = re.fullmatch(r"(sqlite:///)(?!/)(.+)", client_uri)
    if relative:
        return relative[1] + os.path.abspath(relative[2])
    if "://" not in client_uri and not client_uri.startswith(("file:", "databricks")):
        return Path(client_uri).absolute().as_uri()
    return client_uri


def run_url(tracking_uri: str, experiment_id: str, run_id: str) -> str | None:
    """The run's page in MLflow's UI; None without a server."""
    if not is_http(tracking_uri):
        return None
    server = split_credentials(tracking_uri)[0].rstrip("/")
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}"
