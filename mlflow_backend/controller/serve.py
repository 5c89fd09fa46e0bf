"""The controller as a process: leader election, probes and metrics, graceful shutdown."""

import logging
import os
import signal
import socketserver
import sys
import threading
import urllib.parse
import uuid
import wsgiref.simple_server
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any, TypeAlias

from prometheus_client import make_wsgi_app

from mlflow_backend.controller.control import Controller
from mlflow_backend.controller.lead import Lease, lead
from mlflow_backend.errors import ConfigError
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.leases import Leases

log = logging.getLogger("mlflow_compute")

StartResponse: TypeAlias = Callable[..., Any]
Application: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
"""A WSGI application (PEP 3333)."""


def serve(own: Cluster, clusters: Sequence[Cluster], tracking_uri: str, port: int) -> None:
    """Run until SIGTERM, or until the Lease is lost (the process then exits with 1, to be
    restarted).

    `clusters` are the namespaces whose runs are settled; `own` is that of the Lease. Raises
    ConfigError when the tracking server has no http(s) address, or the port is in use.
    """
    _check(tracking_uri)
    controller, leases = Controller(clusters, tracking_uri), Leases(own)
    identity = f"{os.environ.get('HOSTNAME', 'controller')}-{uuid.uuid4().hex[:6]}"
    state = {"leading": False}
    httpd = _listen(port)
    httpd.set_app(_app(controller, lambda: controller.is_ready or not state["leading"]))
    threading.Thread(target=httpd.serve_forever, daemon=True, name="http").start()

    def started() -> None:
        state["leading"] = True
        names = ", ".join(cluster.namespace for cluster in clusters)
        log.info(
            "leading (Lease in namespace %s): namespaces %s, tracking server %s",
            own.namespace,
            names,
            tracking_uri,
        )
        controller.start()

    def lost() -> None:
        log.error("lost the Lease, exiting")
        os._exit(1)

    def stop(number: int, _frame: FrameType | None) -> None:
        log.info("received %s, stopping", signal.Signals(number).name)
        Lease(leases, identity).release()
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    lead(leases, identity, started, lost)


def _check(tracking_uri: str) -> None:
    parsed = urllib.parse.urlsplit(tracking_uri)
    if parsed.scheme not in ("http", "https"):
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: {tracking_uri or 'is not set'}",
            code="InvalidValue" if tracking_uri else "MissingSetting",
            hint="the controller needs the http(s) address of a tracking server",
        )
    if "@" in parsed.netloc:
        raise ConfigError(
            "MLFLOW_TRACKING_URI: contains a login",
            code="CredentialInText",
            hint="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead",
        )


def _listen(port: int) -> "_Server":
    try:
        return _Server(("", port), _Quiet)
    except OSError as error:
        raise ConfigError(
            f"--port {port}: cannot listen: {error.strerror}", hint="choose another port"
        ) from None


def _app(controller: Controller, ready: Callable[[], bool]) -> Application:
    metrics: Application = make_wsgi_app(controller.metrics.registry)
    probes = {"/healthz": lambda: controller.is_healthy, "/readyz": ready}

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path in probes:
            status = "200 OK" if probes[path]() else "503 Service Unavailable"
        else:
            status = "404 Not Found"
        start_response(status, [("Content-Type", "text/plain")])
        return [status.encode() + b"\n"]

    return answer


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """No line per probe."""


def log_to_stderr() -> None:
    """Log to standard error, with times."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
