"""The Kubernetes API as this package uses it: dicts in, dicts out, one-line errors."""

import atexit
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, TypeVar

from mlflow_backend.errors import ClusterError, ClusterUnavailable
from mlflow_backend.places.kubernetes.client import answers, kubeconfig
from mlflow_backend.places.kubernetes.client.answers import Object
from mlflow_backend.places.kubernetes.client.connection import CONNECT_TIMEOUT_S, Call, Connection
from mlflow_backend.places.kubernetes.client.kubeconfig import Login
from mlflow_backend.places.kubernetes.client.streams import Stop, lines

LEAST_VERSION = (1, 30)
"""The oldest Kubernetes: Jobs need 1.29 (podReplacementPolicy, backoffLimitPerIndex),
ValidatingAdmissionPolicies 1.30.
"""
PAGE = 50
"""Objects of one answer to a list: a thousand Jobs at once are tens of megabytes of dicts."""
SLIM_PAGE = 500
"""The same for lists whose items are reduced at once."""
CLOSE_S = 2.0
SILENT_LOG_TIMEOUT_S = 600
"""A log that is silent for so long is requested again: the connection may be dead."""

Json: TypeAlias = dict[str, Any]
T = TypeVar("T")

_open: "weakref.WeakSet[Cluster]" = weakref.WeakSet()


class Cluster:
    """One namespace of one cluster, with the login of the kubeconfig, or of the pod's service
    account.

    Every method raises ClusterError with what failed, where, and what to do; ClusterUnavailable if
    it may succeed later. `watches` belongs to observe.py: the watches that all waiters of this
    namespace share.
    """

    def __init__(
        self, context: str | None = None, namespace: str | None = None, login: Login | None = None
    ) -> None:
        login = login or kubeconfig.log_in(context)
        self.namespace = namespace or login.namespace
        self.connection = Connection(login, self.namespace)
        self.watches: dict[str, Any] = {}
        self._identity: str | None = None
        self._threads: list[threading.Thread] = []
        _open.add(self)

    @property
    def context(self) -> str:
        """The name of the kubeconfig's context."""
        return self.connection.context

    @property
    def closing(self) -> Stop:
        """Set when the process ends, or by `close`."""
        return self.connection.closing

    @property
    def on_call(self) -> Callable[[str], None]:
        """Called with every request, `list Pods` for example; replace it to count them."""
        return self.connection.on_call

    @on_call.setter
    def on_call(self, count: Callable[[str], None]) -> None:
        self.connection.on_call = count

    def now_s(self) -> float:
        """The API server's time, in seconds since the epoch."""
        return self.connection.now_s()

    def identity(self) -> str | None:
        """The namespace's uid, which no namespace of the same name in another cluster has.

        None where the user may not read it.
        """
        if self._identity is None:
            namespace = self.connection.find(
                f"get Namespace {self.namespace}",
                lambda api, **raw: api.core.read_namespace(self.namespace, **raw),
                none_on=(403, 404),
            )
            self._identity = namespace["metadata"]["uid"] if namespace else None
        return self._identity

    def check(self, objects: Sequence[Object]) -> None:
        """Have the API server validate `objects` without storing them: permissions, quantities,
        admission. Data is not sent.

        Raises ClusterError for the first that it rejects, or for a server older than LEAST_VERSION.
        """
        with ThreadPoolExecutor(len(objects) + 1) as pool:
            version = pool.submit(self.check_version)
            created = [
                pool.submit(self.create, _without_data(item), dry_run=True) for item in objects
            ]
            version.result()
            for answer in created:
                answer.result()

    def check_version(self) -> None:
        """Raise ClusterError for a server older than LEAST_VERSION, unless it hides its version."""
        answer = self.connection.find(
            "get the version",
            lambda api, **raw: api.version.get_code(**raw),
            none_on=(401, 403, 404),
        )
        version = re.match(r"v?(\d+)\.(\d+)", (answer or {}).get("gitVersion") or "")
        if version and tuple(map(int, version.groups())) < LEAST_VERSION:
            least = ".".join(map(str, LEAST_VERSION))
            raise ClusterError(
                f"context {self.context}: Kubernetes {version[0]} is too old: {least} or later is "
                "needed",
                code="UnsupportedCluster",
                hint="upgrade the cluster",
            )

    def create(self, item: Object, dry_run: bool = False) -> Json:
        """Create one object (Job, ConfigMap, Secret).

        Raises AlreadyExists if there is one of its name.
        """
        keywords = {"dry_run": "All"} if dry_run else {}
        kind, name = item["kind"], item["metadata"]["name"]
        return self.connection.ask(
            f"create {kind} {name}",
            lambda api, **raw: _creator(api, kind)(self.namespace, item, **keywords, **raw),
            is_safe=dry_run,
        )

    def read_config_map(self, name: str, namespace: str | None = None) -> Json | None:
        """The ConfigMap of this or another namespace; None if there is none of this name."""
        where = f" of namespace {namespace}" if namespace else ""
        return self.connection.find(
            f"get ConfigMap {name}{where}",
            lambda api, **raw: api.core.read_namespaced_config_map(
                name, namespace or self.namespace, **raw
            ),
            none_on=(404,),
        )

    def read_job(self, name: str) -> Json | None:
        """The Job; None if there is none of this name."""
        return self.connection.find(
            f"get Job {name}",
            lambda api, **raw: api.batch.read_namespaced_job(name, self.namespace, **raw),
            none_on=(404,),
        )

    def list_objects(
        self, kind: str, selector: str, keep: Callable[[Json], Any] = lambda item: item
    ) -> tuple[list[Any], str]:
        """What `keep` makes of the objects of a kind (Pod, Job) with these labels, and the
        resourceVersion of the list.
        """
        return self._list(
            f"list {kind}s",
            lambda api, **raw: _lister(api, kind)(self.namespace, label_selector=selector, **raw),
            keep,
        )

    def watch_objects(
        self, kind: str, selector: str, version: str, timeout_s: int, stop: Stop | None = None
    ) -> Iterator[Json]:
        """The watch events (`type`, `object`) after `version`, for at most `timeout_s` seconds, or
        until `stop` is set.
        """
        with self.connection.stream(
            f"watch {kind}s",
            lambda api, **raw: _lister(api, kind)(
                self.namespace,
                label_selector=selector,
                watch=True,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=timeout_s,
                **raw,
            ),
            timeout_s + CONNECT_TIMEOUT_S,
            stop or self.closing,
        ) as blocks:
            for line in lines(blocks):
                event = answers.parse(line)
                if event is None:
                    raise ClusterUnavailable(
                        f"context {self.context}: the watch of {kind}s was interrupted"
                    )
                yield event

    def list_events(self, kind: str, name: str) -> list[Json]:
        """Events about one object; an empty list where the user may not read events.

        Raises ClusterUnavailable for an outage.
        """
        selector = f"involvedObject.kind={kind},involvedObject.name={name}"
        try:
            return self._list(
                "list Events",
                lambda api, **raw: api.core.list_namespaced_event(
                    self.namespace, field_selector=selector, **raw
                ),
                lambda item: item,
            )[0]
        except ClusterUnavailable:
            raise
        except ClusterError:
            return []

    def list_nodes(self, keep: Callable[[Json], T]) -> list[T]:
        """What `keep` makes of each node; an empty list where the user may not list nodes."""
        try:
            return self._list(
                "list Nodes", lambda api, **raw: api.core.list_node(**raw), keep, SLIM_PAGE
            )[0]
        except ClusterError:
            return []

    def list_scheduled_pods(self, keep: Callable[[Json], T]) -> list[T] | None:
        """What `keep` makes of each pod of all namespaces that uses resources of a node; None where
        the user may not list them.
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

        No error if it does not exist, or another Job has its name.
        """
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        self.connection.find(
            f"delete Job {name}",
            lambda api, **raw: api.batch.delete_namespaced_job(
                name, self.namespace, body=options, **raw
            ),
            none_on=(404, 409),
        )

    def release_pod(self, name: str, uid: str, by_force: bool) -> None:
        """Delete the pod with this uid, `by_force` where its node cannot confirm its end. No error
        if it does not exist, or the user may not delete it (the controller may).
        """
        options: Json = {
            "preconditions": {"uid": uid},
            **({"gracePeriodSeconds": 0} if by_force else {}),
        }
        self.connection.find(
            f"delete Pod {name}",
            lambda api, **raw: api.core.delete_namespaced_pod(
                name, self.namespace, body=options, **raw
            ),
            none_on=(403, 404, 409),
        )

    def follow_log(self, pod: str, since_s: float | None) -> Iterator[bytes]:
        """The lines of the pod's log as they arrive, each after its RFC 3339 time and a space.

        `since_s`: only the last so many seconds; the API rejects less than 1.
        """
        keywords: Json = {} if since_s is None else {"since_seconds": max(1, int(since_s))}
        with self.connection.stream(
            f"read the log of Pod {pod}",
            lambda api, **raw: api.core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container="run",
                follow=True,
                timestamps=True,
                **keywords,
                **raw,
            ),
            SILENT_LOG_TIMEOUT_S,
            self.closing,
        ) as blocks:
            yield from lines(blocks)

    def start_thread(self, target: Callable[[], None], name: str) -> threading.Thread:
        """Run `target`, which reads from the cluster until `closing` is set, in a daemon thread."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=target, daemon=True, name=name))
        self._threads[-1].start()
        return self._threads[-1]

    def close(self) -> None:
        """End the threads: one that returns from a read while Python exits may abort it."""
        self.closing.set()
        for thread in self._threads:
            thread.join(CLOSE_S)

    def _list(
        self, what: str, call: Call, keep: Callable[[Json], T], size: int = PAGE
    ) -> tuple[list[T], str]:
        """What `keep` makes of the items of all pages, and the list's resourceVersion."""
        items: list[T] = []
        following: Json = {"limit": size}
        while True:
            page = self.connection.ask(what, partial(call, **following))
            items += [keep(item) for item in page.get("items") or ()]
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, metadata.get("resourceVersion") or ""
            following["_continue"] = metadata["continue"]


def _creator(api: Any, kind: str) -> Call:
    creators: dict[str, Call] = {
        "Job": api.batch.create_namespaced_job,
        "ConfigMap": api.core.create_namespaced_config_map,
        "Secret": api.core.create_namespaced_secret,
    }
    return creators[kind]


def _lister(api: Any, kind: str) -> Call:
    listers: dict[str, Call] = {
        "Pod": api.core.list_namespaced_pod,
        "Job": api.batch.list_namespaced_job,
    }
    return listers[kind]


def _without_data(item: Object) -> Json:
    return {key: value for key, value in item.items() if key not in ("data", "binaryData")}


@atexit.register
def _close_all() -> None:
    for cluster in list(_open):
        cluster.close()
