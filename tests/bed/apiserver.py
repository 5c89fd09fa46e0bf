"""An API server that answers as it is told: for answers that a real one cannot be made to give at a
moment of the test's choice.
"""

import base64
import json
import select
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

COLLECTIONS = ("pods", "jobs", "configmaps", "secrets", "events", "nodes", "leases")
REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
}


@dataclass(frozen=True)
class Answer:
    """`body` is sent as JSON, bytes as they are; an iterable of `stream` as chunks, one each.

    `cut` closes the connection instead.
    """

    status: int = 200
    body: Any = None
    headers: dict = field(default_factory=dict)
    stream: Iterable[Any] | None = None
    cut: bool = False


def refusal(status: int, message: str = "no", reason: str | None = None, **headers: str) -> Answer:
    """A Status object, as an API server refuses a call. `Retry_After="1"` sets that header."""
    reason = reason or REASONS.get(status, "InternalError")
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": status,
    }
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def listing(*items: dict, version: str = "1", **metadata: str) -> Answer:
    return Answer(body={"items": list(items), "metadata": {"resourceVersion": version, **metadata}})


@dataclass(frozen=True)
class Call:
    """A request: `what` is as `list pods`, `watch jobs`, `get leases`, `create configmaps`, `log`,
    `get version`.
    """

    what: str
    path: str
    query: dict[str, str]
    body: Any
    token: str | None


class ApiServer:
    """`answers[what]` is a list of Answers, given one after the other; the last one again and
    again. A watch without one is silent.

    An answer may also be a function that makes it of the Call.
    """

    def __init__(self, context: ssl.SSLContext | None = None):
        self.answers: dict[str, list[Answer | Callable[[Call], Answer]]] = defaultdict(list)
        self.calls: list[Call] = []
        self.watching = 0
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._secure = context is not None
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"api": self})
        )
        self._server.daemon_threads = True
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._secure else ''}://localhost:{self._server.server_address[1]}"

    def count(self, what: str) -> int:
        return sum(call.what == what for call in self.calls)

    def until(self, condition, timeout_s: float = 20) -> None:
        """Wait for what `condition` says of this server; it is looked at after each of its calls
        and ends of watches.
        """
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), (
                f"calls: {[call.what for call in self.calls]}, watching: {self.watching}"
            )

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, call: Call) -> Answer:
        with self._changed:
            self.calls.append(call)
            left = self.answers[call.what]
            answer = (left.pop(0) if len(left) > 1 else left[0]) if left else None
            answer = answer(call) if callable(answer) else answer
            self._changed.notify_all()
        if answer is None and call.what.startswith("watch"):
            return Answer(stream=self._silence())
        return answer or refusal(404, f'{call.what}: "{call.path}" not found')

    def note_watch(self, change: int) -> None:
        with self._changed:
            self.watching += change
            self._changed.notify_all()

    def _silence(self):
        while not self._closed.wait(0.02):
            yield b""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: ApiServer

    def answer(self):
        path = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(path.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        call = Call(
            _what(self.command, path.path, query),
            path.path,
            query,
            json.loads(body) if body else None,
            token,
        )
        answer = self.api.take(call)
        self.close_connection = answer.cut or answer.stream is not None
        if answer.cut:
            return
        self.send_response_only(answer.status)
        for name, value in {
            "Date": formatdate(usegmt=True),
            "Content-Type": "application/json",
            **answer.headers,
        }.items():
            self.send_header(name, value)
        if answer.stream is None:
            content = (
                answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            )
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.api.note_watch(1)
        try:
            for item in answer.stream:
                content = item if isinstance(item, bytes) else json.dumps(item).encode() + b"\n"
                if not content and select.select([self.connection], [], [], 0)[0]:
                    return  # the client has gone
                if not content:
                    continue
                self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the client has gone
        finally:
            self.api.note_watch(-1)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, format, *arguments):
        """Tests look at `calls`."""


def _what(method: str, path: str, query: dict[str, str]) -> str:
    parts = path.strip("/").split("/")
    if parts[-1] == "log":
        return "log"
    verb = {"POST": "create", "PUT": "update", "DELETE": "delete"}.get(method, "get")
    if parts[-1] in COLLECTIONS:
        verb = (
            "watch"
            if query.get("watch", "").lower() == "true"
            else "list"
            if verb == "get"
            else verb
        )
        return f"{verb} {parts[-1]}"
    return f"{verb} {parts[-2] if len(parts) > 1 else parts[-1]}"


def write_kubeconfig(
    path,
    *,
    user: dict | None = None,
    name: str = "test",
    namespace: str = "n",
    current: str | None = "test",
    **cluster,
):
    """A kubeconfig with one context, cluster and user of this name."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": "first"} if user is None else user}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}
        ],
    }
    if current:
        content["current-context"] = current
    path.write_text(yaml.safe_dump(content))
    return path


def data(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
