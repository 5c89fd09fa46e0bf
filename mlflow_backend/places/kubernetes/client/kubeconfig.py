"""Which API server a kubeconfig means, and how to log in to it, as kubectl reads it.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from mlflow_backend.errors import ClusterError, UnknownCluster
from mlflow_backend.places.kubernetes.client import exec_plugin, tls

IN_CLUSTER = "in-cluster"
"""The context of a process in a pod without a kubeconfig: the pod's service account."""
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
HINT = "set KUBECONFIG to a file that works with kubectl"
CERTIFICATE_KEYS = tuple(
    f"{name}{suffix}"
    for name in ("certificate-authority", "client-certificate", "client-key")
    for suffix in ("", "-data")
)


class Login(NamedTuple):
    """A way into one cluster as one user. `configuration` is a kubernetes.client.Configuration
    without certificates: those are in `ssl_context` (None for plain HTTP). `expires_s` is when the
    credentials do, in seconds since the epoch.
    """

    context: str
    user: str | None
    namespace: str
    configuration: Any
    ssl_context: ssl.SSLContext | None
    expires_s: float | None

    @property
    def server(self) -> str:
        return self.configuration.host


class _NotThere(ValueError):
    """A name that no kubeconfig file defines."""


class _Entry(NamedTuple):
    """A named entry of a kubeconfig (of clusters, contexts or users); `folder` is that of its file,
    for relative paths.
    """

    value: Mapping[str, Any]
    folder: str


def path() -> str:
    """KUBECONFIG or its default, read at each call: the client library looks at the variable only
    once, when it is imported.
    """
    return os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")


def stamps() -> tuple[int | None, ...]:
    """What changes when a file of the kubeconfig does."""
    names = filter(None, path().split(os.pathsep))
    return tuple(os.stat(name).st_mtime_ns if os.path.exists(name) else None for name in names)


def log_in(context: str | None = None) -> Login:
    """Read the credentials of a context, the current one if None, as they are now; an exec plugin
    is run.

    In a pod, where no kubeconfig names a context, the service account's. Raises ClusterError.
    """
    import yaml
    from kubernetes.config import ConfigException

    where = f"kubeconfig {path()}" + (f", context '{context}'" if context else "")
    try:
        return _log_in(context)
    except yaml.YAMLError:
        raise ClusterError(f"{where}: is no YAML: {HINT}") from None
    except (ConfigException, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        kind = UnknownCluster if isinstance(error, _NotThere) else ClusterError
        raise kind(f"{where}: {reason}: {HINT}") from None
    except (AttributeError, KeyError, TypeError):
        # a list where a mapping belongs, an entry without its name
        raise ClusterError(f"{where}: is no valid kubeconfig: {HINT}") from None


def _log_in(context: str | None) -> Login:
    from kubernetes.config.kube_config import KubeConfigMerger

    merger = KubeConfigMerger(path())
    contents = [merger.config_files[name] for name in merger.paths]
    current = next(
        (content["current-context"] for content in contents if content.get("current-context")), None
    )
    if context in (None, IN_CLUSTER) and not current and "KUBERNETES_SERVICE_HOST" in os.environ:
        return _service_account()
    if not contents:
        raise ValueError("there is no such file")
    name = context or current
    if name is None:
        known = (
            ", ".join(
                entry["name"] for content in contents for entry in content.get("contexts") or ()
            )
            or "none"
        )
        raise ValueError(
            f"has no current-context: name a context in the target ('context', known: {known})"
        )
    return _log_in_as_told(merger, name)


def _log_in_as_told(merger: Any, name: str) -> Login:
    from kubernetes import client
    from kubernetes.config.kube_config import ConfigNode, KubeConfigLoader

    context = _find(merger, "contexts", name).value
    cluster = _find(merger, "clusters", context["cluster"])
    user_name = context.get("user")
    user = _find(merger, "users", user_name) if user_name else _Entry({}, "")
    credentials = None
    if plugin := user.value.get("exec"):
        where = f"kubeconfig {path()}, user '{user_name}'"
        credentials = exec_plugin.run(where, plugin, cluster.value, user.folder)

    # The library writes certificates to files that it removes at the end of the process at the
    # earliest, and not at
    # all when a signal ends it: it gets everything but these. What it renews itself
    # (`auth-provider`) it writes back.
    values = {
        "contexts": {"context": context},
        "clusters": {"cluster": _bare(cluster)},
        "users": {"user": _bare(user, credentials)},
    }
    names = {"contexts": name, "clusters": context["cluster"], "users": user_name}
    entries = {
        kind: [ConfigNode(kind, {"name": names[kind], **value}, os.devnull)]
        for kind, value in values.items()
    }
    only = ConfigNode("kubeconfig", {"current-context": name, **entries}, os.devnull)
    configuration = client.Configuration()
    loader = KubeConfigLoader(only, config_base_path="", config_persister=merger.save_changes)
    loader.load_and_set(configuration)
    configuration.retries = False
    secure = configuration.host.startswith("https")
    return Login(
        name,
        user_name,
        context.get("namespace") or "default",
        configuration,
        _ssl_context(cluster, user, credentials, configuration.verify_ssl) if secure else None,
        _seconds(credentials.expires) if credentials and credentials.expires else None,
    )


def _find(merger: Any, kind: str, name: str) -> _Entry:
    """The first entry of this name, as kubectl takes it when several files have one.

    Raises _NotThere.
    """
    names = []
    for file in merger.paths:
        for item in merger.config_files[file].get(kind) or ():
            if item["name"] == name:
                return _Entry(item[kind[:-1]] or {}, os.path.dirname(os.path.abspath(file)))
            names.append(item["name"])
    raise _NotThere(f"has no {kind[:-1]} '{name}' (known: {', '.join(names) or 'none'})")


def _bare(entry: _Entry, credentials: exec_plugin.Credentials | None = None) -> dict[str, Any]:
    """The entry without certificates and plugin, with paths made absolute, for the library."""
    value = {
        key: value for key, value in entry.value.items() if key not in (*CERTIFICATE_KEYS, "exec")
    }
    if "tokenFile" in value:
        value["tokenFile"] = os.path.join(entry.folder, value["tokenFile"])
    if credentials and credentials.token:
        value["token"] = credentials.token
    return value


def _ssl_context(
    cluster: _Entry, user: _Entry, credentials: exec_plugin.Credentials | None, verify: bool
) -> ssl.SSLContext:
    client = credentials and credentials.client
    certificates, key = _content(user, "client-certificate"), _content(user, "client-key")
    if client is None and bool(certificates) != bool(key):
        raise ValueError("the user has only one of client-certificate and client-key")
    if client is None and certificates and key:
        client = tls.ClientCertificate(certificates, key)
    try:
        return tls.make_context(_content(cluster, "certificate-authority"), client, verify)
    except ssl.SSLError as error:
        raise ValueError(
            f"a certificate or key could not be read ({error.reason or error})"
        ) from None


def _content(entry: _Entry, name: str) -> bytes | None:
    """The content of a certificate or key, of the file that is named or of the entry itself, which
    kubectl prefers.
    """
    if data := entry.value.get(f"{name}-data"):
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except binascii.Error:
            raise ValueError(f"{name}-data is no base64") from None
    if file := entry.value.get(name):
        with open(os.path.join(entry.folder, file), "rb") as opened:
            return opened.read()
    return None


def _service_account() -> Login:
    from kubernetes import client, config

    configuration = client.Configuration()
    config.load_incluster_config(client_configuration=configuration)
    configuration.retries = False
    with (
        open(configuration.ssl_ca_cert, "rb") as authorities,
        open(f"{SERVICE_ACCOUNT}/namespace") as namespace,
    ):
        context = tls.make_context(authorities.read(), None, verify=True)
        return Login(IN_CLUSTER, None, namespace.read().strip(), configuration, context, None)


def _seconds(stamp: str) -> float:
    moment = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
