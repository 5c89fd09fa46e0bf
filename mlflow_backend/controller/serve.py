"""The controller as a process: leads or waits, answers probes and Prometheus, ends in order."""

import logging
import os
import signal
import socketserver
import sys
import threading
import uuid
import wsgiref.simple_server
from collections.abc import Callable

from prometheus_client import make_wsgi_app

from mlflow_backend.cluster.api import Cluster
from mlflow_backend.controller.control import Controller
from mlflow_backend.controller.lead import Lease, lead
from mlflow_backend.errors import ConfigError

log = logging.getLogger("mlflow_compute")


def serve(cluster: Cluster, tracking_uri: str | None, port: int) -> None:
    """Run until SIGTERM, or until the Lease is lost (then the process ends with 1 and is started again).

    Raises ConfigError when there is no tracking server to be reached over HTTP.
    """
    if not (tracking_uri or "").startswith(("http://", "https://")):
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: {tracking_uri or 'is not set'}: the controller needs the http(s) address of a tracking server"
        )
    controller = Controller(cluster, tracking_uri)
    identity = f"{os.environ.get('HOSTNAME', 'controller')}-{uuid.uuid4().hex[:6]}"
    state = {"leading": False}
    httpd = _Server(("", port), _Quiet)
    httpd.set_app(_app(controller, lambda: controller.is_ready or not state["leading"]))
    threading.Thread(target=httpd.serve_forever, daemon=True, name="http").start()

    def started():
        state["leading"] = True
        log.info("leading in namespace %s, tracking server %s", cluster.namespace, tracking_uri)
        controller.start()

    def lost():
        log.error("the Lease is lost")
        os._exit(1)

    def stop(number, _frame):
        log.info("stopped by %s", signal.Signals(number).name)
        Lease(cluster, identity).release()
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    lead(cluster, identity, started, lost)


def _app(controller: Controller, ready: Callable[[], bool]):
    metrics = make_wsgi_app(controller.metrics.registry)

    def answer(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        good = {"/healthz": lambda: controller.is_healthy, "/readyz": ready}.get(path)
        status = "404 Not Found" if good is None else "200 OK" if good() else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain")])
        return [status.encode() + b"\n"]

    return answer


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format, *arguments):
        """A line per probe says nothing."""


def log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
