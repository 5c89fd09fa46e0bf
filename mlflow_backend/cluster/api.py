"""The Kubernetes API as this package uses it: dicts in, dicts out, one-line errors."""

import atexit
import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any

from mlflow_backend.errors import ClusterError

CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 60
PAGE = 50
"""Objects of one answer to a list: a thousand Jobs at once are tens of megabytes of dicts."""
CLOCK_S = 2.0
"""A difference of clocks up to this is the second's rounding in the server's answer."""
CLOSE_S = 2.0
SILENT_LOG_TIMEOUT_S = 600
"""A log that is silent for so long is asked for again: the connection may be dead."""


def connect(context: str | None = None, namespace: str | None = None) -> "Cluster":
    """The Cluster of a kubeconfig's context; the same one, with its open connections, until the kubeconfig changes."""
    names = _kubeconfig().split(os.pathsep)
    files = tuple((name, os.stat(name).st_mtime_ns if os.path.exists(name) else None) for name in names)
    return _connect(files, context, namespace)


@functools.lru_cache(maxsize=16)
def _connect(_files, context, namespace) -> "Cluster":
    return Cluster(context, namespace)


class AlreadyExists(ClusterError):
    """An object of this name exists."""


class Cluster:
    """One namespace of one cluster, reached as the kubeconfig says, or as the pod we are in says.

    Every method raises ClusterError with what failed, where, and what is missing.
    `on_call` is told of every call, `list Pods` for example.
    """

    def __init__(self, context: str | None = None, namespace: str | None = None):
        self.on_call: Callable[[str], None] = lambda what: None
        self._wanted = context, namespace
        self._identity: str | None = None
        self._clock_offset_s = 0.0
        self.closing = threading.Event()
        self._streams: set[Any] = set()
        self._threads: list[threading.Thread] = []
        atexit.register(self.close)
        self._log_in()

    def _log_in(self) -> None:
        """Read the credentials as they are now; they may have been renewed since."""
        from kubernetes import client, config
        from kubernetes.config import ConfigException

        context, namespace = self._wanted
        configuration = client.Configuration()
        try:
            try:
                config.load_kube_config(_kubeconfig(), context=context, client_configuration=configuration)
                self.context, default = _context(config, context)
            except ConfigException:
                if context is not None or "KUBERNETES_SERVICE_HOST" not in os.environ:
                    raise
                config.load_incluster_config(client_configuration=configuration)
                self.context, default = "in-cluster", _service_account_namespace()
        except (ConfigException, OSError, TypeError, ValueError) as error:
            wanted = f", context {context!r}" if context else ""
            reason = _first_line(error).rstrip(".")
            raise ClusterError(f"kubeconfig {_kubeconfig()}{wanted}: {reason}: set KUBECONFIG to a file that works with kubectl") from None
        configuration.retries = False
        self.namespace = namespace or default
        self.api_client = client.ApiClient(configuration)
        self.core = client.CoreV1Api(self.api_client)
        self.batch = client.BatchV1Api(self.api_client)
        self._server = configuration.host

    def identity(self) -> str | None:
        """What tells this namespace from one of the same name in another cluster: its uid. None where it may not be read."""
        from kubernetes.client import ApiException

        if self._identity is None:
            with self._errors(f"get Namespace {self.namespace}"):
                try:
                    self._identity = self._json(self.core.read_namespace(self.namespace, **self._raw()))["metadata"]["uid"]
                except ApiException as error:
                    if error.status not in (403, 404):
                        raise
        return self._identity

    def now_s(self) -> float:
        """The time of the API server's last answer and what has passed since: this machine's clock may be wrong."""
        return time.time() + self._clock_offset_s

    def check(self, objects: list[Mapping[str, Any]]) -> None:
        """Let the API server judge `objects` without storing them: permissions, quantities, admission.

        Data of ConfigMaps and Secrets is not sent.
        """
        with ThreadPoolExecutor(len(objects)) as pool:
            answers = [pool.submit(self.create, _without_data(item), dry_run=True) for item in objects]
            for answer in answers:
                answer.result()

    def create(self, item: Mapping[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Create one object. Raises AlreadyExists when there is one of its name."""
        from kubernetes.client import ApiException

        call = {
            "Job": self.batch.create_namespaced_job,
            "ConfigMap": self.core.create_namespaced_config_map,
            "Secret": self.core.create_namespaced_secret,
        }[item["kind"]]
        keywords = {"dry_run": "All"} if dry_run else {}
        what = f"{item['kind']} {item['metadata']['name']}"
        with self._errors(f"create {what}"):
            try:
                return self._json(call(self.namespace, item, **keywords, **self._raw()))
            except ApiException as error:
                if error.status == 409 and _reason(error) == "AlreadyExists":
                    raise AlreadyExists(f"{what}: one of this name exists in namespace {self.namespace}") from None
                raise

    def read_config_map(self, name: str) -> dict[str, Any] | None:
        """The ConfigMap, or None when there is none of this name."""
        return self._read("ConfigMap", name, self.core.read_namespaced_config_map)

    def read_job(self, name: str) -> dict[str, Any] | None:
        """The Job, or None when there is none of this name."""
        return self._read("Job", name, self.batch.read_namespaced_job)

    def list_objects(self, kind: str, selector: str, keep: Callable[[dict[str, Any]], Any] = lambda item: item) -> tuple[list[Any], str]:
        """What `keep` leaves of the objects of a kind (Pod, Job) with these labels, and the resourceVersion of the list."""
        items: list[Any] = []
        following: dict[str, Any] = {}
        with self._errors(f"list {kind}s"):
            while True:
                call = self._list_call(kind)
                page = self._json(call(self.namespace, label_selector=selector, limit=PAGE, **following, **self._raw()))
                items += [keep(item) for item in page["items"]]
                if not page["metadata"].get("continue"):
                    return items, page["metadata"]["resourceVersion"]
                following = {"_continue": page["metadata"]["continue"]}

    def watch_objects(self, kind: str, selector: str, version: str, timeout_s: int) -> Iterator[dict[str, Any]]:
        """The watch events (`type`, `object`) after `version`, for at most `timeout_s` seconds."""
        with self._errors(f"watch {kind}s"):
            response = self._list_call(kind)(
                self.namespace, label_selector=selector, watch=True, resource_version=version, allow_watch_bookmarks=True,
                timeout_seconds=timeout_s, _preload_content=False, _request_timeout=(CONNECT_TIMEOUT_S, timeout_s + CONNECT_TIMEOUT_S),
            )  # fmt: skip
            with self._streaming(response):
                for line in _lines(response):
                    yield json.loads(line)

    def list_events(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Events about one object; an empty list where the user may not read events."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name}"
        try:
            with self._errors("list Events"):
                return self._json(self.core.list_namespaced_event(self.namespace, field_selector=selector, **self._raw()))["items"]
        except ClusterError:
            return []

    def list_nodes(self) -> list[dict[str, Any]]:
        """All nodes; an empty list where the user may not know them."""
        try:
            with self._errors("list Nodes"):
                return self._json(self.core.list_node(**self._raw()))["items"]
        except ClusterError:
            return []

    def list_scheduled_pods(self) -> list[dict[str, Any]] | None:
        """The pods of all namespaces that take room on a node; None where the user may not know them."""
        selector = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
        try:
            with self._errors("list Pods (all)"):
                return self._json(self.core.list_pod_for_all_namespaces(field_selector=selector, **self._raw()))["items"]
        except ClusterError:
            return None

    def delete_job(self, name: str, uid: str | None = None) -> None:
        """Delete the Job with this uid, its pods and what it owns. No error if it is gone, or another one has its name."""
        from kubernetes.client import ApiException

        with self._errors(f"delete Job {name}"):
            try:
                options = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}
                self.batch.delete_namespaced_job(name, self.namespace, body=options, **self._raw())
            except ApiException as error:
                if error.status != 404 and not (uid and error.status == 409):
                    raise

    def release_pod(self, name: str) -> None:
        """Delete a pod by force, as its node cannot say that it has ended. Nothing where the user may not: the controller may."""
        from kubernetes.client import ApiException

        with self._errors(f"delete Pod {name}"):
            try:
                self.core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=0, **self._raw())
            except ApiException as error:
                if error.status not in (403, 404):
                    raise

    def follow_log(self, pod: str, since_s: int | None) -> Iterator[bytes]:
        """The lines of the pod's log as they come, each with its RFC 3339 time and a space before it."""
        keywords: dict[str, Any] = {"since_seconds": since_s} if since_s is not None else {}
        with self._errors(f"read the log of Pod {pod}"):
            response = self.core.read_namespaced_pod_log(
                pod, self.namespace, container="run", follow=True, timestamps=True,
                _preload_content=False, _request_timeout=(CONNECT_TIMEOUT_S, SILENT_LOG_TIMEOUT_S), **keywords,
            )  # fmt: skip
            with self._streaming(response):
                yield from _lines(response)

    def run_beside(self, target: Callable[[], None], name: str) -> threading.Thread:
        """Run `target`, which reads from the cluster until `closing` is set, in a thread that the process does not wait for."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=target, daemon=True, name=name))
        self._threads[-1].start()
        return self._threads[-1]

    def close(self) -> None:
        """End what runs beside, at the end of the process: a thread that comes back from a read while Python ends may abort it."""
        self.closing.set()
        for response in list(self._streams):
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                response.shutdown()
        for thread in self._threads:
            thread.join(CLOSE_S)

    @contextlib.contextmanager
    def _streaming(self, response):
        self._streams.add(response)
        try:
            if self.closing.is_set():
                raise ClusterError("the process ends")
            yield
        finally:
            self._streams.discard(response)
            response.release_conn()

    def _read(self, kind, name, call):
        from kubernetes.client import ApiException

        with self._errors(f"get {kind} {name}"):
            try:
                return self._json(call(name, self.namespace, **self._raw()))
            except ApiException as error:
                if error.status == 404:
                    return None
                raise

    def _list_call(self, kind):
        return {"Pod": self.core.list_namespaced_pod, "Job": self.batch.list_namespaced_job}[kind]

    @contextlib.contextmanager
    def _errors(self, what):
        import urllib3
        from kubernetes.client import ApiException

        if self.closing.is_set():
            raise ClusterError(f"cannot {what}: the process ends")
        self.on_call(" ".join(what.split()[:2]))
        try:
            yield
        except ApiException as error:
            if error.status == 401:
                self._log_in()  # for the next call
            raise ClusterError(self._explain(what, error)) from None
        except urllib3.exceptions.HTTPError as error:
            raise ClusterError(
                f"cluster {self._server} (context {self.context}) cannot be reached: {_cause(error)}: check the address and VPN"
            ) from None

    def _explain(self, what, error) -> str:
        where = f"context {self.context}, namespace {self.namespace}"
        message = _message(error)
        if error.status == 401:
            return f"{where}: cannot {what}: not logged in (401): renew the kubeconfig's credentials"
        if error.status == 403 and "is forbidden: User" in message:
            return f"{where}: cannot {what}: {message}: ask for the Role in k8s/base"
        if error.status == 404 and "namespaces" in message:
            return f"{where}: cannot {what}: {message}: create the namespace or correct 'namespace' in the target"
        return f"{where}: cannot {what}: {message}"

    @staticmethod
    def _raw():
        return {"_preload_content": False, "_request_timeout": (CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S)}

    def _json(self, response) -> dict[str, Any]:
        if stamp := response.headers.get("Date"):
            offset_s = parsedate_to_datetime(stamp).timestamp() - time.time()
            self._clock_offset_s = offset_s if abs(offset_s) > CLOCK_S else 0.0
        return json.loads(response.data)


def _kubeconfig() -> str:
    """Asked for each time: the client library looks at the variable only once, when it is imported."""
    return os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")


def _context(config, name) -> tuple[str, str]:
    contexts, active = config.list_kube_config_contexts(_kubeconfig())
    chosen = active if name is None else next(item for item in contexts if item["name"] == name)
    return chosen["name"], chosen["context"].get("namespace") or "default"


def _service_account_namespace() -> str:
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:
        return file.read().strip()


def _without_data(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in ("data", "binaryData")}


def _lines(response) -> Iterator[bytes]:
    rest = b""
    for block in response.stream(65536, decode_content=False):
        *lines, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def _message(error) -> str:
    try:
        return json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        return _first_line(error.reason or error)


def _reason(error) -> str | None:
    try:
        return json.loads(error.body).get("reason")
    except (TypeError, ValueError):
        return None


def _cause(error) -> str:
    inner = getattr(error, "reason", None) or error
    return _first_line(inner).rpartition(": ")[2]


def _first_line(error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
