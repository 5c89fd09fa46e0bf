"""Which API server a kubeconfig means, and how to log in to it, as kubectl reads it.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

import base64
import binascii
import os
import ssl
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from mlflow_backend.errors import ClusterError, UnknownCluster, nearest
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
    credentials expire, in seconds since the epoch.
    """

    context: str
    user: str | None
    namespace: str
    configuration: Any
    ssl_context: ssl.SSLContext | None
    expires_s: float | None

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return str(self.configuration.host)


class _Entry(NamedTuple):
    """A named entry of a kubeconfig (of clusters, contexts or users); `folder` is that of its file,
    for relative paths.
    """

    value: Mapping[str, Any]
    folder: str


def path() -> str:
    """KUBECONFIG or its default, read at each call: the client library reads the variable only
    once, when it is imported.
    """
    return os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")


def stamps() -> tuple[int | None, ...]:
    """A value that changes when a file of the kubeconfig does."""
    names = filter(None, path().split(os.pathsep))
    return tuple(os.stat(name).st_mtime_ns if os.path.exists(name) else None for name in names)


def log_in(context: str | None = None) -> Login:
    """Read the credentials of a context, the current one if None, as they are now; an exec plugin
    is run.

    In a pod, where no kubeconfig names a context, the service account's. Raises ClusterError.
    """
    import yaml
    from kubernetes.config import ConfigException

    try:
        return _log_in(context)
    except yaml.YAMLError:
        reason = "is not valid YAML"
    except (ConfigException, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    except (AttributeError, KeyError, TypeError):
        # a list where a mapping belongs, an entry without its name
        reason = "is not a valid kubeconfig"
    raise ClusterError(f"{_where(context)}: {reason}", code="InvalidKubeconfig", hint=HINT)


def _where(context: str | None) -> str:
    return f"kubeconfig {path()}" + (f", context '{context}'" if context else "")


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
        raise ValueError("no such file")
    name = context or current
    if name is None:
        names = [entry["name"] for entry, _ in _entries(merger, "contexts")]
        raise ClusterError(
            f"{_where(None)}: has no current-context",
            code="InvalidKubeconfig",
            hint=f"name a context in the target ('context', known: {', '.join(names) or 'none'})",
        )
    return _log_in_to(merger, name)


def _log_in_to(merger: Any, name: str) -> Login:
    """The login of the context of this name in the files of a KubeConfigMerger."""
    context = _read(merger, "contexts", name, name).value
    cluster = _read(merger, "clusters", context["cluster"], name)
    user_name = context.get("user")
    user = _read(merger, "users", user_name, name) if user_name else _Entry({}, "")
    credentials = None
    if plugin := user.value.get("exec"):
        where = f"kubeconfig {path()}, user '{user_name}'"
        credentials = exec_plugin.run(where, plugin, cluster.value, user.folder)
    configuration = _configure(merger, name, context, cluster, _without_files(user, credentials))
    secure = configuration.host.startswith("https")
    return Login(
        name,
        user_name,
        context.get("namespace") or "default",
        configuration,
        _ssl_context(cluster, user, credentials, configuration.verify_ssl) if secure else None,
        _seconds(credentials.expires) if credentials and credentials.expires else None,
    )


def _configure(
    merger: Any, name: str, context: Mapping[str, Any], cluster: _Entry, user: Mapping[str, Any]
) -> Any:
    """The kubernetes.client.Configuration of the context `name`.

    The library writes certificates to files that it removes at the end of the process at the
    earliest, and not at all when a signal ends it, so it gets everything but these. Credentials
    that it renews itself (`auth-provider`) it writes back.
    """
    from kubernetes import client
    from kubernetes.config.kube_config import ConfigNode, KubeConfigLoader

    names = {"context": name, "cluster": context["cluster"], "user": context.get("user")}
    values = {"context": context, "cluster": _without_files(cluster), "user": user}
    entries = {
        f"{kind}s": [ConfigNode(f"{kind}s", {"name": names[kind], kind: value}, os.devnull)]
        for kind, value in values.items()
    }
    only = ConfigNode("kubeconfig", {"current-context": name, **entries}, os.devnull)
    configuration = client.Configuration()
    loader = KubeConfigLoader(only, config_base_path="", config_persister=merger.save_changes)
    loader.load_and_set(configuration)
    configuration.retries = False
    return configuration


def _entries(merger: Any, kind: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each entry of a kind (clusters, contexts, users) with its file, in the order of the files."""
    for file in merger.paths:
        for item in merger.config_files[file].get(kind) or ():
            yield item, file


def _read(merger: Any, kind: str, name: str, context: str) -> _Entry:
    """The first entry of this name, which kubectl uses when several files have one.

    Raises UnknownCluster.
    """
    names = []
    for item, file in _entries(merger, kind):
        if item["name"] == name:
            return _Entry(item[kind[:-1]] or {}, os.path.dirname(os.path.abspath(file)))
        names.append(item["name"])
    raise UnknownCluster(
        f"{_where(context)}: has no {kind[:-1]} '{name}'", hint=nearest(name, names)
    )


def _without_files(
    entry: _Entry, credentials: exec_plugin.Credentials | None = None
) -> dict[str, Any]:
    """The entry without certificates and plugin, with absolute paths, for the library."""
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
    """The content of a certificate or key, of the entry itself, which kubectl prefers, or of the
    file that it names.
    """
    if data := entry.value.get(f"{name}-data"):
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except binascii.Error:
            raise ValueError(f"{name}-data is not valid base64") from None
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
