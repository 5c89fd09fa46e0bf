"""A way to a server that can be cut, be slow, hang, refuse, or answer nonsense: for faults that the
server itself cannot be made to show.
"""

import http.client
import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ARTIFACTS = "/api/2.0/mlflow-artifacts/"
RUNNER = "mlflow-compute/"
"""How the User-Agent of the runner begins; MLflow's own client has another."""


@dataclass(frozen=True)
class Call:
    """One request as it came in; `endpoint` is its path without the API's prefix and query."""

    method: str
    path: str
    headers: dict
    body: bytes

    @property
    def endpoint(self) -> str:
        return self.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")


class Proxy:
    """Forwards to the server on `port` of this machine, and keeps every call in `calls`.

    `mode` is for every path: open, cut, slow, hang, drip (a byte a second), refuse (401), or an
    HTTP status. `artifacts` is the same for artifacts alone, `runner` for calls of the runner,
    `endpoints` for single endpoints of the API. `body_limit` is what an artifact may have, in bytes
    (413). `answers` are bodies with status 200, by endpoint.
    """

    def __init__(self, port: int):
        self.mode = "open"
        self.artifacts: str | int | None = None
        self.runner: str | int | None = None
        self.endpoints: dict[str, str | int] = {}
        self.body_limit: int | None = None
        self.answers: dict[str, bytes] = {}
        self.calls: list[Call] = []
        self._closed = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                call = Call(self.command, self.path, dict(self.headers), body)
                proxy.calls.append(call)
                mode = proxy._mode(call)
                if isinstance(mode, int):
                    self._send(mode, {}, b"the proxy says so")
                elif mode == "cut":
                    self.connection.shutdown(socket.SHUT_RDWR)
                elif mode == "refuse":
                    self._send(401, {}, b"You are not authenticated")
                elif call.endpoint in proxy.answers:
                    self._send(200, {}, proxy.answers[call.endpoint])
                else:
                    if mode == "hang":
                        proxy._closed.wait()
                    if mode == "slow":
                        time.sleep(1.5)
                    self._forward(body, drip=mode == "drip")

            def _forward(self, body, drip):
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    headers = {
                        key: value for key, value in self.headers.items() if key.lower() != "host"
                    }
                    upstream.request(self.command, self.path, body, headers)
                    response = upstream.getresponse()
                    self._send(response.status, dict(response.getheaders()), response.read(), drip)
                except OSError:
                    self.connection.shutdown(socket.SHUT_RDWR)
                finally:
                    upstream.close()

            def _send(self, status, headers, body, drip=False):
                self.send_response(status)
                for key, value in headers.items():
                    if key.lower() not in (
                        "content-length",
                        "transfer-encoding",
                        "connection",
                        "date",
                        "server",
                    ):
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for start in range(len(body)) if drip else ():
                    self.wfile.write(body[start : start + 1])
                    proxy._closed.wait(1)
                self.wfile.write(b"" if drip else body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, format, *arguments):
                """Nothing reads it."""

        self._server = _Server(("0.0.0.0", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _mode(self, call: Call) -> str | int:
        is_artifact = call.path.startswith(ARTIFACTS)
        if is_artifact and self.body_limit is not None and len(call.body) > self.body_limit:
            return 413
        if is_artifact and self.artifacts is not None:
            return self.artifacts
        if self.runner is not None and call.headers.get("User-Agent", "").startswith(RUNNER):
            return self.runner
        return self.endpoints.get(call.endpoint, self.mode)

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that went away is what these tests are about."""
