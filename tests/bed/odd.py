"""An HTTP server that gives one answer to everything: for clients that must stand what is not
MLflow.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class OddServer:
    """Answers every request with `status` and `body`; `asked` holds the paths, the query cut off."""

    def __init__(self, body: bytes, status: int = 200):
        self.asked: list[str] = []
        odd = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                odd.asked.append(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, format, *arguments):
                """Tests look at `asked`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def __enter__(self) -> "OddServer":
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()
