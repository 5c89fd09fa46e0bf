"""A Python index of this machine's own: wheels in a folder, served as PEP 503 says."""

import base64
import contextlib
import functools
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path


def add_wheel(
    folder: Path, name: str, version: str, requires=(), content: bytes | None = None
) -> Path:
    """Write a wheel with one module that knows its version, and the page that lists it."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(
        f"Requires-Dist: {item}\n" for item in requires
    )
    files = {
        f"{name}/__init__.py": content or f"__version__ = {version!r}\n".encode(),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    files[f"{info}/RECORD"] = "".join(
        f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in files.items()
    ).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    page = folder / "simple" / name
    page.mkdir(parents=True, exist_ok=True)
    wheel = page / f"{name}-{version}-py3-none-any.whl"
    wheel.write_bytes(buffer.getvalue())
    _write_page(page)
    return wheel


def add_sdist(folder: Path, name: str, version: str, traces: Path, static: bool = False) -> Path:
    """Write a source archive whose build backend leaves a line with its variables in the file
    `traces`; with `static`, PEP 643 metadata.
    """
    backend = (
        f"import json, os\n\nwith open({str(traces)!r}, 'a') as file:\n    "
        "file.write(json.dumps(dict(os.environ)) + '\\n')\n\n\ndef "
        "prepare_metadata_for_build_wheel(directory, config_settings=None):\n    "
        f"os.makedirs(os.path.join(directory, '{name}-{version}.dist-info'))\n    with "
        f"open(os.path.join(directory, '{name}-{version}.dist-info', 'METADATA'), 'w') as file:\n  "
        f"      file.write('Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')\n    "
        f"return '{name}-{version}.dist-info'\n"
    )
    files = {
        "PKG-INFO": (
            f"Metadata-Version: {'2.2' if static else '2.1'}\nName: {name}\nVersion: {version}\n"
        ),
        "pyproject.toml": (
            "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        ),
        "backend.py": backend,
    }
    page = folder / "simple" / name
    page.mkdir(parents=True, exist_ok=True)
    archive = page / f"{name}-{version}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    _write_page(page)
    return archive


def _write_page(page: Path) -> None:
    paths = sorted((*page.glob("*.whl"), *page.glob("*.tar.gz")))
    links = (
        f'<a href="{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">{path.name}</a>'
        for path in paths
    )
    (page / "index.html").write_text("".join(links))


@contextlib.contextmanager
def serve(
    folder: Path,
    login: str | None = None,
    name: str = "127.0.0.1",
    asked: list | None = None,
    tls=None,
    hang: bool = False,
) -> Iterator[str]:
    """Serve `folder` over HTTP; with `login` (`user:password`) only to who knows it.

    `name` is what clients call this machine; `asked` gets the path of each request; with `tls` (an
    ssl.SSLContext) over HTTPS; with `hang` no request is answered. The address, without a slash at
    its end.
    """
    expected = login and "Basic " + base64.b64encode(login.encode()).decode()

    closed = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if asked is not None:
                asked.append(self.path)
            if hang:
                closed.wait()
                return
            if expected and self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            super().do_GET()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(
        ("0.0.0.0", 0), functools.partial(Handler, directory=str(folder))
    ) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"{'https' if tls else 'http'}://{name}:{server.server_port}"
        closed.set()
        server.shutdown()
        thread.join()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
