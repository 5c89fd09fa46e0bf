"""Credentials from the program that a kubeconfig's user names (`exec`), for example `aws` or
`kubelogin`.

The protocol:
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes.client.answers import parse
from mlflow_backend.places.kubernetes.client.tls import ClientCertificate

CLUSTER_EXTENSION = "client.authentication.k8s.io/exec"
CLUSTER_KEYS = (
    "server",
    "certificate-authority-data",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "proxy-url",
)
LOG_IN = "log in again with it"

Entry = Mapping[str, Any]
"""The value of an entry of a kubeconfig: a cluster, or a user's `exec`."""


class Credentials(NamedTuple):
    """A plugin's answer: a bearer token, a client certificate, or both; `expires` is an RFC 3339
    time, if the plugin names one.
    """

    token: str | None
    client: ClientCertificate | None
    expires: str | None


def run(where: str, plugin: Entry, cluster: Entry, folder: str) -> Credentials:
    """Run the plugin, with the terminal if there is one: it may ask for a login.

    `where` names the kubeconfig's entry, `folder` is the kubeconfig's. Raises ClusterError with the
    plugin's name.
    """
    command = plugin["command"]
    where = f"{where}: the credential plugin '{command}'"
    program = shutil.which(os.path.join(folder, command) if os.path.dirname(command) else command)
    if program is None:
        raise ClusterError(
            f"{where} is not installed or not in PATH",
            code="MissingTool",
            hint=_first_line(plugin.get("installHint")) or "install it",
        )
    interactive = (
        plugin.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()
    )
    try:
        process = subprocess.run(
            [program, *(plugin.get("args") or ())],
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if interactive else subprocess.PIPE,
            env=_variables(plugin, cluster, interactive),
            text=True,
            check=False,
        )
    except OSError as error:
        raise ClusterError(
            f"{where} could not be started: {error.strerror}", code="MissingTool"
        ) from None
    if process.returncode:
        last = _last_line(process.stderr)
        raise ClusterError(
            f"{where} failed with exit code {process.returncode}{last and ': ' + last}",
            code="LoginFailed",
            hint=LOG_IN,
        )
    return _credentials(where, plugin, process.stdout)


def _variables(plugin: Entry, cluster: Entry, interactive: bool) -> dict[str, str]:
    own = {item["name"]: item["value"] for item in plugin.get("env") or ()}
    request = json.dumps(_request(plugin, cluster, interactive))
    return {**os.environ, **own, "KUBERNETES_EXEC_INFO": request}


def _request(plugin: Entry, cluster: Entry, interactive: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {name: cluster[name] for name in CLUSTER_KEYS if name in cluster}
        for item in cluster.get("extensions") or ():
            if item.get("name") == CLUSTER_EXTENSION:
                spec["cluster"]["config"] = item.get("extension")
    return {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": spec}


def _credentials(where: str, plugin: Entry, output: str) -> Credentials:
    """No error shows the plugin's output, which holds the credential."""
    try:
        answer = parse(output) or {}
        status, version = answer["status"], answer["apiVersion"]
        client = None
        if "clientCertificateData" in status:
            client = ClientCertificate(
                status["clientCertificateData"].encode(), status["clientKeyData"].encode()
            )
        credentials = Credentials(status.get("token"), client, status.get("expirationTimestamp"))
    except (KeyError, TypeError, AttributeError):
        raise ClusterError(
            f"{where} did not print an ExecCredential with a status",
            code="LoginFailed",
            hint="check its arguments",
        ) from None
    if version != plugin.get("apiVersion"):
        raise ClusterError(
            f"{where} returned the version {version}, but the kubeconfig requires "
            f"{plugin.get('apiVersion')}",
            code="InvalidKubeconfig",
            hint="update the kubeconfig",
        )
    if not (credentials.token or client):
        raise ClusterError(
            f"{where} returned neither a token nor a client certificate",
            code="LoginFailed",
            hint=LOG_IN,
        )
    return credentials


def _first_line(text: str | None) -> str:
    return next(iter((text or "").strip().splitlines()), "")


def _last_line(text: str | None) -> str:
    return next(iter(reversed((text or "").strip().splitlines())), "")
