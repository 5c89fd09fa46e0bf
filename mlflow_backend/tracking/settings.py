"""The MLflow settings that travel with a run, and which of them are secret."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow_backend import mlflow_internals
from mlflow_backend.credentials import has_credential, is_credential_name
from mlflow_backend.errors import TrackingError
from mlflow_backend.tracking.uris import is_http, split_credentials

FORWARDED = re.compile(
    r"MLFLOW_(TRACKING|HTTP|S3|GCS|ENABLE|ARTIFACT|MULTIPART|ASYNC|SYSTEM_METRICS|LOG|REGISTRY|REQUESTER|TRUNCATE|DISABLE|WORKSPACE)\w*"
)
"""MLflow settings for clients; settings of a server (store URIs, secret keys) do not match."""
SET_FOR_EACH_RUN = {
    "MLFLOW_TRACKING_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_DIR",
}
FILES = {"MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"}


@dataclass(frozen=True)
class Settings:
    """MLflow variables for a client on another machine: `plain` and `secret` values, and `files` by
    the variable that holds their path.
    """

    plain: Mapping[str, str]
    secret: Mapping[str, str]
    files: Mapping[str, bytes]


def collect(environ: Mapping[str, str], tracking_uri: str) -> tuple[str, Settings]:
    """The tracking URI without credentials, and every MLflow setting of `environ` that a client on
    another machine needs.

    Raises TrackingError when a certificate file cannot be read.
    """
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for name, value in environ.items():
        if not FORWARDED.fullmatch(name) or name in SET_FOR_EACH_RUN or not value:
            continue
        if name in FILES:
            try:
                files[name] = Path(value).read_bytes()
            except OSError as error:
                raise TrackingError(
                    f"{name}: {value} cannot be read: {error.strerror}", code="UnreadableFile"
                ) from None
        else:
            (secret if is_credential_name(name) or has_credential(value) else plain)[name] = value
    plain_uri, credentials = split_credentials(tracking_uri)
    return plain_uri, Settings(
        plain, secret | _login(tracking_uri, secret | credentials) | credentials, files
    )


def _login(uri: str, secrets: Mapping[str, str]) -> dict[str, str]:
    """The login that MLflow's client reads from its credentials file or .netrc when no variable
    holds one.

    https://mlflow.org/docs/latest/auth/ (credentials file), mlflow#11214.
    """
    if secrets or not is_http(uri):
        return {}
    from requests.utils import get_netrc_auth

    user, password = mlflow_internals.stored_login()
    if not user:
        user, password = get_netrc_auth(uri) or (None, None)
    return (
        {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password or ""}
        if user
        else {}
    )
