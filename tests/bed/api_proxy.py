"""A way to the real API server of a cluster that refuses some calls first, as one that is
overloaded.
"""

import http.client
import json
import re
import subprocess
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REASONS = {429: "TooManyRequests", 503: "ServiceUnavailable"}


class ApiProxy:
    """`kubectl proxy` with a door in front: each status in `refusals` is the answer to one POST,
    with Retry-After, before others pass.
    """

    def __init__(self, kubectl: Sequence[str]):
        self.refusals: list[int] = []
        self.context = ""
        self._kubectl = subprocess.Popen(
            [*kubectl, "proxy", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        upstream = int(re.search(r":(\d+)$", self._kubectl.stdout.readline().strip())[1])
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.command == "POST" and proxy.refusals:
                    self._refuse(proxy.refusals.pop(0))
                    return
                connection = http.client.HTTPConnection("127.0.0.1", upstream)
                headers = {
                    name: value for name, value in self.headers.items() if name.lower() != "host"
                }
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                self.send_response(response.status)
                self.send_header(
                    "Content-Type", response.headers.get("Content-Type", "application/json")
                )
                self.send_header("Connection", "close")
                self.end_headers()
                while block := response.read1(65536):  # a watch goes on
                    self.wfile.write(block)
                    self.wfile.flush()

            def _refuse(self, status):
                content = {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "code": status,
                    "reason": REASONS[status],
                }
                self.send_response(status)
                self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(
                    json.dumps({**content, "message": "the server has too much to do"}).encode()
                )

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

            def log_message(self, format, *arguments):
                """Nothing reads it."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._kubectl.kill()
        self._kubectl.wait()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that went away."""
