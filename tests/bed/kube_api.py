"""An API server that accepts and remembers what a client creates: for looking at every byte that
leaves the client.
"""

import json
import threading
import urllib.parse
import uuid
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class KubeApi:
    """Listens on loopback.

    `created` are the objects of POSTs in order, dry runs included; `requests` are all bodies and
    paths as text.
    """

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.requests: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = urllib.parse.urlsplit(self.path).path
                if path.count("/") == 4 and path.startswith("/api/v1/namespaces/"):
                    self._answer(
                        200,
                        {
                            "kind": "Namespace",
                            "metadata": {"name": path.rpartition("/")[2], "uid": "namespace-uid"},
                        },
                    )
                elif path.endswith(("/pods", "/jobs", "/events")):
                    self._answer(
                        200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}
                    )
                else:
                    self._answer(
                        404,
                        {
                            "kind": "Status",
                            "reason": "NotFound",
                            "message": "not found",
                            "code": 404,
                        },
                    )

            def do_POST(self):
                text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                item = json.loads(text)
                api.requests.append(f"{self.path}\n{text}")
                api.created.append(item)
                now = (
                    datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
                )
                metadata = {
                    **item["metadata"],
                    "uid": str(uuid.uuid4()),
                    "creationTimestamp": now,
                    "resourceVersion": "1",
                }
                self._answer(201, {**item, "metadata": metadata})

            def do_DELETE(self):
                self._answer(200, {"kind": "Status", "status": "Success"})

            def _answer(self, status, content):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format, *arguments):
                """Requests are kept, not printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def write_kubeconfig(self, path: Path) -> None:
        """A kubeconfig whose one context `recorded` is this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "recorded",
            "clusters": [
                {
                    "name": "recorded",
                    "cluster": {"server": f"http://127.0.0.1:{self._server.server_address[1]}"},
                }
            ],
            "users": [{"name": "ada", "user": {}}],
            "contexts": [
                {
                    "name": "recorded",
                    "context": {"cluster": "recorded", "user": "ada", "namespace": "team"},
                }
            ],
        }
        path.write_text(json.dumps(config))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
