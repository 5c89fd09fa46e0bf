"""The Clusters of this process: one for each login to a namespace."""

import threading
from collections import OrderedDict
from typing import TypeAlias, TypeVar

from mlflow_backend.places.kubernetes.client import kubeconfig
from mlflow_backend.places.kubernetes.client.api import Cluster

LIMIT = 16
"""How many Clusters are cached, the most recent ones."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_Request: TypeAlias = tuple[str, str | None, str | None]
"""KUBECONFIG, context and namespace as the caller names them."""
_Login: TypeAlias = tuple[str, str, str | None, str, str]
"""KUBECONFIG, context, user, server and namespace."""

_connecting = threading.Lock()
_latest: OrderedDict[_Request, tuple[tuple[int | None, ...], Cluster]] = OrderedDict()
"""The answer to each request, with the stamps of the kubeconfig at that time."""
_clusters: OrderedDict[_Login, Cluster] = OrderedDict()


def connect(context: str | None = None, namespace: str | None = None) -> Cluster:
    """The Cluster of a kubeconfig's context (the current one if None). Raises ClusterError.

    A kubeconfig that was written again, as by `aws` and `gcloud`, renews the credentials of the
    existing Cluster; one that names another server or user leads to another Cluster.
    """
    request, stamps = (kubeconfig.path(), context, namespace), kubeconfig.stamps()
    with _connecting:
        if request in _latest and _latest[request][0] == stamps:
            _latest.move_to_end(request)
            return _latest[request][1]
        cluster = _log_in(context, namespace)
        _latest[request] = stamps, cluster
        _trim(_latest, request)
        return cluster


def _log_in(context: str | None, namespace: str | None) -> Cluster:
    login = kubeconfig.log_in(context)
    key = (
        kubeconfig.path(),
        login.context,
        login.user,
        login.server,
        namespace or login.namespace,
    )
    cluster = _clusters.get(key)
    if cluster is None:
        cluster = _clusters[key] = Cluster(context, namespace, login)
    else:
        cluster.connection.use(login)
    _trim(_clusters, key)
    return cluster


def _trim(cache: OrderedDict[_Key, _Value], latest: _Key) -> None:
    """Keep the LIMIT most recent entries, of which `latest` is the newest."""
    cache.move_to_end(latest)
    while len(cache) > LIMIT:
        cache.popitem(last=False)
