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
from mlflow_backend.places.kubernetes.client.tls import ClientCertificate

CLUSTER_EXTENSION = "client.authentication.k8s.io/exec"


class Credentials(NamedTuple):
    """What the plugin gave: a bearer token, a client certificate, or both; `expires` is the RFC
    3339 time it told, if any.
    """

    token: str | None
    client: ClientCertificate | None
    expires: str | None


def run(
    where: str, plugin: Mapping[str, Any], cluster: Mapping[str, Any], folder: str
) -> Credentials:
    """Run the plugin, with the terminal if there is one: it may ask for a login.

    `where` names the kubeconfig's entry, `folder` is the kubeconfig's. Raises ClusterError with the
    plugin's name.
    """
    command = plugin["command"]
    where = f"{where}: the credential plugin '{command}'"
    variables = {**os.environ, **{item["name"]: item["value"] for item in plugin.get("env") or ()}}
    program = os.path.join(folder, command) if os.path.dirname(command) else command
    program = shutil.which(program)
    if program is None:
        raise ClusterError(
            f"{where} is not installed or not in PATH: "
            f"{_first_line(plugin.get('installHint')) or 'install it'}"
        )
    interactive = (
        plugin.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()
    )
    variables["KUBERNETES_EXEC_INFO"] = json.dumps(_request(plugin, cluster, interactive))
    try:
        done = subprocess.run(
            [program, *(plugin.get("args") or ())],
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if interactive else subprocess.PIPE,
            env=variables,
            text=True,
        )
    except OSError as error:
        raise ClusterError(f"{where} could not be started: {error.strerror}") from None
    if done.returncode:
        said = _last_line(done.stderr)
        raise ClusterError(
            f"{where} failed with exit code {done.returncode}{said and ': ' + said}: log in again "
            "with it"
        )
    return _credentials(where, plugin, done.stdout)


def _request(
    plugin: Mapping[str, Any], cluster: Mapping[str, Any], interactive: bool
) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.get("provideClusterInfo"):
        names = (
            "server",
            "certificate-authority-data",
            "tls-server-name",
            "insecure-skip-tls-verify",
            "proxy-url",
        )
        spec["cluster"] = {name: cluster[name] for name in names if name in cluster}
        for item in cluster.get("extensions") or ():
            if item.get("name") == CLUSTER_EXTENSION:
                spec["cluster"]["config"] = item.get("extension")
    return {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": spec}


def _credentials(where: str, plugin: Mapping[str, Any], answer: str) -> Credentials:
    """Nothing of the answer is shown in an error: it holds the credential."""
    try:
        found = json.loads(answer)
        status, version = found["status"], found["apiVersion"]
        client = None
        if "clientCertificateData" in status:
            client = ClientCertificate(
                status["clientCertificateData"].encode(), status["clientKeyData"].encode()
            )
        credentials = Credentials(status.get("token"), client, status.get("expirationTimestamp"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ClusterError(
            f"{where} did not print an ExecCredential with a status: check its arguments"
        ) from None
    if version != plugin.get("apiVersion"):
        raise ClusterError(
            f"{where} speaks {version}, the kubeconfig asks for {plugin.get('apiVersion')}: update "
            "the kubeconfig"
        )
    if not (credentials.token or client):
        raise ClusterError(
            f"{where} gave neither a token nor a client certificate: log in again with it"
        )
    return credentials


def _first_line(text: str | None) -> str:
    return next(iter((text or "").strip().splitlines()), "")


def _last_line(text: str | None) -> str:
    return next(iter(reversed((text or "").strip().splitlines())), "")
