"""The variables that hold the login to the tracking server.

Those of MLflow's own client (https://mlflow.org/docs/latest/rest-api.html, "environment
variables"), and ours.
"""

import re
from typing import Mapping, MutableMapping, Tuple

USERNAME, PASSWORD, TOKEN = NAMES = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
CREDENTIAL_HOSTS = "MLFLOW_COMPUTE_CREDENTIAL_HOSTS"
"""Lists further hosts that may receive the login, HOST or HOST:PORT, separated by commas: for a run
on this machine, which has no target.
"""


def strip(environ: MutableMapping[str, str]) -> None:
    """Remove the trailing newline that `echo TOKEN | base64` and `kubectl create secret
    --from-file` leave.
    """
    for name in NAMES:
        if name in environ:
            environ[name] = environ[name].rstrip("\r\n")


def credential_hosts(environ: Mapping[str, str]) -> Tuple[str, ...]:
    """The hosts that `CREDENTIAL_HOSTS` lists."""
    return tuple(host for host in re.split(r"[,\s]+", environ.get(CREDENTIAL_HOSTS, "")) if host)
