"""A way to a server that can be cut, be slow, hang, or refuse: for faults that the server itself cannot be made to show."""

import http.client
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Proxy:
    """Forwards to the server on `port` of this machine. `mode` is open, cut, slow, hang or refuse."""

    def __init__(self, port: int):
        self.mode = "open"
        self._closed = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if proxy.mode == "cut":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if proxy.mode == "refuse":
                    self._send(401, {}, b"You are not authenticated")
                    return
                if proxy.mode == "hang":
                    proxy._closed.wait()
                if proxy.mode == "slow":
                    time.sleep(1.5)
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
                    upstream.request(self.command, self.path, body, headers)
                    response = upstream.getresponse()
                    self._send(response.status, dict(response.getheaders()), response.read())
                except OSError:
                    self.connection.shutdown(socket.SHUT_RDWR)
                finally:
                    upstream.close()

            def _send(self, status, headers, body):
                self.send_response(status)
                for key, value in headers.items():
                    if key.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, format, *arguments):
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
