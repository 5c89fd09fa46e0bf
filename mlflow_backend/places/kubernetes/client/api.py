"""The Kubernetes API as this package uses it: dicts in, dicts out, one-line errors."""

import atexit
import collections
import json
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow_backend.errors import ClusterError, ClusterUnavailable
from mlflow_backend.places.kubernetes.client import kubeconfig
from mlflow_backend.places.kubernetes.client.connection import CONNECT_TIMEOUT_S, Connection
from mlflow_backend.places.kubernetes.client.kubeconfig import Login
from mlflow_backend.places.kubernetes.client.streams import Stop, lines

LEAST_VERSION = (1, 30)
"""The oldest Kubernetes: Jobs need 1.29 (podReplacementPolicy, backoffLimitPerIndex),
ValidatingAdmissionPolicies 1.30.
"""
PAGE = 50
"""Objects of one answer to a list: a thousand Jobs at once are tens of megabytes of dicts."""
SLIM_PAGE = 500
"""The same for lists of which little is kept."""
CLOSE_S = 2.0
SILENT_LOG_TIMEOUT_S = 600
"""A log that is silent for so long is asked for again: the connection may be dead."""
CONNECTIONS = 16
"""So many Clusters are kept for `connect`, the most recent ones."""

_connecting = threading.Lock()
_latest: "collections.OrderedDict[tuple, tuple[tuple, Cluster]]" = collections.OrderedDict()
_clusters: "collections.OrderedDict[tuple, Cluster]" = collections.OrderedDict()
_open: "weakref.WeakSet[Cluster]" = weakref.WeakSet()


def connect(context: str | None = None, namespace: str | None = None) -> "Cluster":
    """The Cluster of a kubeconfig's context (the current one if None). Raises ClusterError.

    A kubeconfig that was written again, as by `aws` and `gcloud`, renews the credentials of the
    Cluster that there is; one that names another server or user gives another Cluster.
    """
    asked, stamps = (kubeconfig.path(), context, namespace), kubeconfig.stamps()
    with _connecting:
        if asked in _latest and _latest[asked][0] == stamps:
            _latest.move_to_end(asked)
            return _latest[asked][1]
        login = kubeconfig.log_in(context)
        place = (
            kubeconfig.path(),
            login.context,
            login.user,
            login.server,
            namespace or login.namespace,
        )
        cluster = _clusters.get(place)
        if cluster is None:
            cluster = _clusters[place] = Cluster(context, namespace, login)
        else:
            cluster.connection.use(login)
        _latest[asked] = stamps, cluster
        _latest.move_to_end(asked)
        _clusters.move_to_end(place)
        for kept in (_latest, _clusters):
            while len(kept) > CONNECTIONS:
                kept.popitem(last=False)
        return cluster


class Cluster:
    """One namespace of one cluster, reached as the kubeconfig says, or as the pod we are in says.

    Every method raises ClusterError with what failed, where, and what to do; ClusterUnavailable if
    it may succeed later. `watches` belongs to observe.py: the watches that are shared by all who
    wait for a run of this namespace.
    """

    def __init__(
        self, context: str | None = None, namespace: str | None = None, login: Login | None = None
    ):
        login = login or kubeconfig.log_in(context)
        self.namespace = namespace or login.namespace
        self.connection = Connection(login, self.namespace)
        self.watches: dict[str, Any] = {}
        self._identity: str | None = None
        self._threads: list[threading.Thread] = []
        _open.add(self)

    @property
    def context(self) -> str:
        return self.connection.context

    @property
    def closing(self) -> Stop:
        """Set when the process ends, or by `close`."""
        return self.connection.closing

    @property
    def on_call(self) -> Callable[[str], None]:
        """Told of every request, `list Pods` for example; replace it to count them."""
        return self.connection.on_call

    @on_call.setter
    def on_call(self, told: Callable[[str], None]) -> None:
        self.connection.on_call = told

    def now_s(self) -> float:
        """The API server's time, in seconds since the epoch."""
        return self.connection.now_s()

    def identity(self) -> str | None:
        """What tells this namespace from one of the same name in another cluster: its uid.

        None where it may not be read.
        """
        if self._identity is None:
            what = f"get Namespace {self.namespace}"
            found = self.connection.ask(
                what,
                lambda api, **raw: api.core.read_namespace(self.namespace, **raw),
                none_on=(403, 404),
            )
            self._identity = found["metadata"]["uid"] if found else None
        return self._identity

    def check(self, objects: list[Mapping[str, Any]]) -> None:
        """Let the API server judge `objects` without storing them: permissions, quantities,
        admission. Data is not sent.

        Raises ClusterError for the first that it refuses, or for a server older than LEAST_VERSION.
        """
        with ThreadPoolExecutor(len(objects) + 1) as pool:
            answers = [pool.submit(self.check_version)]
            answers += [
                pool.submit(self.create, _without_data(item), dry_run=True) for item in objects
            ]
            for answer in answers:
                answer.result()

    def check_version(self) -> None:
        """Raises ClusterError for a server older than LEAST_VERSION.

        Nothing where it does not tell its version.
        """
        told = self.connection.ask(
            "get the version",
            lambda api, **raw: api.version.get_code(**raw),
            none_on=(401, 403, 404),
        )
        version = re.match(r"v?(\d+)\.(\d+)", (told or {}).get("gitVersion") or "")
        if version and tuple(map(int, version.groups())) < LEAST_VERSION:
            least = ".".join(map(str, LEAST_VERSION))
            raise ClusterError(
                f"context {self.context}: Kubernetes {version[0]} is too old: {least} or later is "
                "needed: upgrade the cluster"
            )

    def create(self, item: Mapping[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Create one object (Job, ConfigMap, Secret).

        Raises AlreadyExists if there is one of its name.
        """
        keywords = {"dry_run": "All"} if dry_run else {}
        kind, name = item["kind"], item["metadata"]["name"]

        def call(api, **raw):
            calls = {
                "Job": api.batch.create_namespaced_job,
                "ConfigMap": api.core.create_namespaced_config_map,
                "Secret": api.core.create_namespaced_secret,
            }
            return calls[kind](self.namespace, item, **keywords, **raw)

        return self.connection.ask(f"create {kind} {name}", call, is_safe=dry_run)

    def read_config_map(self, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """The ConfigMap of this or another namespace, or None when there is none of this name."""
        place = namespace or self.namespace
        what = f"get ConfigMap {name}" + (f" of namespace {place}" if namespace else "")
        return self.connection.ask(
            what,
            lambda api, **raw: api.core.read_namespaced_config_map(name, place, **raw),
            none_on=(404,),
        )

    def read_job(self, name: str) -> dict[str, Any] | None:
        """The Job, or None when there is none of this name."""
        return self.connection.ask(
            f"get Job {name}",
            lambda api, **raw: api.batch.read_namespaced_job(name, self.namespace, **raw),
            none_on=(404,),
        )

    def read_lease(self, name: str, timeout_s: float) -> dict[str, Any] | None:
        """The Lease, or None when there is none of this name. One attempt of about `timeout_s`."""
        return self.connection.ask(
            f"get Lease {name}",
            lambda api, **raw: api.coordination.read_namespaced_lease(name, self.namespace, **raw),
            none_on=(404,), timeout_s=timeout_s, repeats=0,
        )  # fmt: skip

    def create_lease(self, lease: Mapping[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Store a new Lease; None if there is one of its name. One attempt of about `timeout_s`."""
        return self.connection.ask(
            f"create Lease {lease['metadata']['name']}",
            lambda api, **raw: api.coordination.create_namespaced_lease(self.namespace, lease,
            **raw),
            none_on=(409,), is_safe=False, timeout_s=timeout_s, repeats=0,
        )  # fmt: skip

    def replace_lease(self, lease: Mapping[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Store the Lease, whose resourceVersion must be the present one; None if it is not.

        One attempt of about `timeout_s`.
        """
        name = lease["metadata"]["name"]
        return self.connection.ask(
            f"update Lease {name}",
            lambda api, **raw: api.coordination.replace_namespaced_lease(name, self.namespace,
            lease, **raw),
            none_on=(404, 409), is_safe=False, timeout_s=timeout_s, repeats=0,
        )  # fmt: skip

    def list_objects(
        self, kind: str, selector: str, keep: Callable[[dict[str, Any]], Any] = lambda item: item
    ) -> tuple[list[Any], str]:
        """What `keep` leaves of the objects of a kind (Pod, Job) with these labels, and the
        resourceVersion of the list.
        """
        return self._list(
            f"list {kind}s",
            lambda api, **raw: _lister(api, kind)(self.namespace, label_selector=selector, **raw),
            keep,
        )

    def watch_objects(
        self, kind: str, selector: str, version: str, timeout_s: int, stop: Stop | None = None
    ) -> Iterator[dict[str, Any]]:
        """The watch events (`type`, `object`) after `version`, for at most `timeout_s` seconds, or
        until `stop` is set.
        """

        def call(api, **raw):
            return _lister(api, kind)(
                self.namespace, label_selector=selector, watch=True, resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=timeout_s, **raw,
            )  # fmt: skip

        with self.connection.stream(
            f"watch {kind}s", call, timeout_s + CONNECT_TIMEOUT_S, stop or self.closing
        ) as blocks:
            for line in lines(blocks):
                try:
                    event = json.loads(line)
                except (ValueError, RecursionError):
                    raise ClusterUnavailable(
                        f"context {self.context}: the watch of {kind}s was cut off"
                    ) from None
                yield event

    def list_events(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Events about one object; an empty list where the user may not read events.

        An outage is no such answer: it raises.
        """
        selector = f"involvedObject.kind={kind},involvedObject.name={name}"
        try:
            return self._list(
                "list Events",
                lambda api, **raw: api.core.list_namespaced_event(
                    self.namespace, field_selector=selector, **raw
                ),
            )[0]
        except ClusterUnavailable:
            raise
        except ClusterError:
            return []

    def list_nodes(self, keep: Callable[[dict[str, Any]], Any]) -> list[Any]:
        """What `keep` leaves of each node; an empty list where the user may not know them."""
        try:
            return self._list(
                "list Nodes", lambda api, **raw: api.core.list_node(**raw), keep, SLIM_PAGE
            )[0]
        except ClusterError:
            return []

    def list_scheduled_pods(self, keep: Callable[[dict[str, Any]], Any]) -> list[Any] | None:
        """What `keep` leaves of each pod, of all namespaces, that takes room on a node; None where
        the user may not know them.
        """
        selector = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
        try:
            return self._list(
                "list Pods (all)",
                lambda api, **raw: api.core.list_pod_for_all_namespaces(
                    field_selector=selector, **raw
                ),
                keep,
                SLIM_PAGE,
            )[0]
        except ClusterError:
            return None

    def delete_job(self, name: str, uid: str) -> None:
        """Delete the Job with this uid, its pods and what it owns.

        No error if it is gone, or another one has its name now.
        """
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        self.connection.ask(
            f"delete Job {name}",
            lambda api, **raw: api.batch.delete_namespaced_job(
                name, self.namespace, body=options, **raw
            ),
            none_on=(404, 409),
        )

    def release_pod(self, name: str, uid: str, by_force: bool) -> None:
        """Delete the pod with this uid, `by_force` where its node cannot say that it has ended. No
        error if it is gone.

        Nothing where the user may not: the controller may.
        """
        options: dict[str, Any] = {
            "preconditions": {"uid": uid},
            **({"gracePeriodSeconds": 0} if by_force else {}),
        }
        self.connection.ask(
            f"delete Pod {name}",
            lambda api, **raw: api.core.delete_namespaced_pod(
                name, self.namespace, body=options, **raw
            ),
            none_on=(403, 404, 409),
        )

    def follow_log(self, pod: str, since_s: float | None) -> Iterator[bytes]:
        """The lines of the pod's log as they come, each with its RFC 3339 time and a space before
        it.

        `since_s`: only of so many seconds; the API refuses less than 1.
        """
        keywords: dict[str, Any] = (
            {} if since_s is None else {"since_seconds": max(1, int(since_s))}
        )

        def call(api, **raw):
            return api.core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container="run",
                follow=True,
                timestamps=True,
                **keywords,
                **raw,
            )

        with self.connection.stream(
            f"read the log of Pod {pod}", call, SILENT_LOG_TIMEOUT_S, self.closing
        ) as blocks:
            yield from lines(blocks)

    def run_beside(self, target: Callable[[], None], name: str) -> threading.Thread:
        """Run `target`, which reads from the cluster until `closing` is set, in a thread that the
        process does not wait for.
        """
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=target, daemon=True, name=name))
        self._threads[-1].start()
        return self._threads[-1]

    def close(self) -> None:
        """End what runs beside, at the end of the process: a thread that comes back from a read
        while Python ends may abort it.
        """
        self.closing.set()
        for thread in self._threads:
            thread.join(CLOSE_S)

    def _list(self, what, call, keep=lambda item: item, size=PAGE) -> tuple[list[Any], str]:
        items: list[Any] = []
        following: dict[str, Any] = {}
        while True:
            page = self.connection.ask(
                what,
                lambda api, following=following, **raw: call(api, limit=size, **following, **raw),
            )
            items += [keep(item) for item in page.get("items") or ()]
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, metadata.get("resourceVersion") or ""
            following = {"_continue": metadata["continue"]}


def _lister(api: Any, kind: str) -> Callable[..., Any]:
    return {"Pod": api.core.list_namespaced_pod, "Job": api.batch.list_namespaced_job}[kind]


def _without_data(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in ("data", "binaryData")}


@atexit.register
def _close_all() -> None:
    for cluster in list(_open):
        cluster.close()
