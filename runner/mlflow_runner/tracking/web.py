"""One HTTP request at a time with the standard library, with a limit to its whole time: no server
can hold its caller.

Redirects are followed as MLflow's client (requests) follows them, also 307 and 308 of a POST or
PUT. TLS settings are those of MLflow's client.
"""

import functools
import http.client
import os
import platform
import socket
import time
import urllib.error
import urllib.request
from typing import Callable, Dict, Optional
from urllib.parse import urlsplit

from mlflow_runner import VERSION
from mlflow_runner.contract.answers import (
    NOT_THERE,
    TRANSIENT_STATUS,
    Denied,
    Missing,
    Refused,
    TooLarge,
    Unavailable,
)
from mlflow_runner.tracking import login

USER_AGENT = f"mlflow-compute/{VERSION} Python/{platform.python_version()}"
CALL_S = 30.0
"""The limit of a call from connecting to the last byte of its answer; only the look-up of a name is
not counted.
"""
LEAST_RATE = 64 * 1024
"""Bytes a second: what moves a file gets `CALL_S` and the time that the file takes at this rate."""
BLOCK_BYTES = 1 << 20
CERTIFICATES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CLIENT_CERTIFICATE = "MLFLOW_TRACKING_CLIENT_CERT_PATH"
WORDS_CHARS = 300
BAD_LOGIN = "Correct the target's 'secret' or 'tracking_auth', or your own login."
BAD_ADDRESS = "Check the tracking URI, and whether the run still exists."


class Limit:
    """Until when a request has to be through."""

    def __init__(self, seconds: float):
        self._until_s = time.monotonic() + seconds

    def extend(self, size: int) -> None:
        """Allow the time that `size` further bytes take at the least rate."""
        self._until_s += size / LEAST_RATE

    def left_s(self) -> float:
        """Raises TimeoutError when nothing is left."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no complete answer in time")
        return left_s


def send(
    method: str,
    url: str,
    data=None,
    headers: Optional[Dict[str, str]] = None,
    limit: Optional[Limit] = None,
    authorize: Callable[[str], Optional[str]] = lambda url: None,
):
    """The response to one request; the limit holds for reading it too. `authorize` gives the login
    for a URL, a redirect's as well.

    Raises Unavailable, or a class of Refused. No message shows a header.
    """
    limit = limit or Limit(CALL_S)
    what = f"{method} {urlsplit(url).path}"
    try:
        request = urllib.request.Request(
            url, data=data, headers={"User-Agent": USER_AGENT, **(headers or {})}, method=method
        )
        _authorize(request, authorize)
        return _opener(limit, authorize).open(request)
    except urllib.error.HTTPError as error:
        raise _answered(what, error) from None
    except (OSError, http.client.HTTPException) as error:
        raise _broken(what, urlsplit(url).netloc, error) from None
    except ValueError as error:  # its text may hold a header
        raise Refused(f"{what}: the request cannot be made ({type(error).__name__})") from None


def download(
    url: str, path: str, authorize: Callable[[str], Optional[str]] = lambda url: None
) -> None:
    """Write the body of `url` to the file. Raises OSError when it cannot be written, else as
    `send`.

    One that breaks off is Unavailable: `http.client` reads it as if it had ended.
    """
    limit, what = Limit(CALL_S), f"GET {urlsplit(url).path}"
    response = send("GET", url, limit=limit, authorize=authorize)
    with response, open(path, "wb") as file:
        while block := _block(response, what):
            limit.extend(len(block))
            file.write(block)
        if response.length:
            raise Unavailable(
                f"{what}: the answer broke off {response.length} bytes before its end"
            )


def _block(response, what: str) -> bytes:
    try:
        return response.read(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(login.hide(f"{what}: {type(error).__name__}: {error}")) from None


def read(response, limit_bytes: int) -> bytes:
    """The body of a response. Raises OSError or HTTPException, and ValueError when it is larger."""
    with response:
        data = response.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"the answer has more than {limit_bytes} bytes")
    return data


def _authorize(request, authorize):
    value = authorize(request.full_url)
    if value:
        request.add_unredirected_header("Authorization", value)


def _answered(what: str, error: urllib.error.HTTPError) -> Exception:
    """What an answer that is no success means."""
    code, to = error.code, error.headers.get("Location") if error.headers else None
    words = f"{what}: {code} {_words(error)}".rstrip() + (
        f" to {to.split('?')[0]}" if to and 300 <= code < 400 else ""
    )
    if code >= 500 or code in TRANSIENT_STATUS:
        return Unavailable(words)
    if code in (401, 403):
        return Denied(words, BAD_LOGIN)
    if code == 404:
        missing = Missing(words, BAD_ADDRESS)
        missing.is_mlflows = NOT_THERE in words
        return missing
    return TooLarge(words) if code == 413 else Refused(words)


def _words(error) -> str:
    """The first words of an answer, as one line that a terminal may show."""
    try:
        with error:
            text = error.read(2 * WORDS_CHARS).decode(errors="replace")
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    text = "".join(char if char.isprintable() else " " for char in login.hide(text))
    return " ".join(text.split())[:WORDS_CHARS]


def _broken(what: str, host: str, error: Exception) -> Exception:
    reason = getattr(error, "reason", error)
    if hasattr(reason, "verify_message"):  # of ssl.SSLCertVerificationError
        words = f"{what}: the certificate of {host} is not trusted ({reason.verify_message})"
        return Denied(
            words, f"Set {CERTIFICATES[0]} to a file with the certificate of its authority."
        )
    return Unavailable(login.hide(f"{what}: {type(reason).__name__}: {reason}"))


class _Limited:
    """A socket whose every operation has the time that is left of `limit`."""

    limit: Optional[Limit] = None

    def _set(self):
        if self.limit:
            self.settimeout(self.limit.left_s())

    def recv_into(self, *arguments, **keywords):
        self._set()
        return super().recv_into(*arguments, **keywords)

    def send(self, *arguments, **keywords):
        self._set()
        return super().send(*arguments, **keywords)

    def sendall(self, *arguments, **keywords):
        self._set()
        return super().sendall(*arguments, **keywords)


class _Socket(_Limited, socket.socket):
    pass


class _Connection(http.client.HTTPConnection):
    """A server that answers before it has read everything (413) and closes is still listened to."""

    def __init__(self, *arguments, limit: Limit, **keywords):
        super().__init__(*arguments, **keywords)
        self.limit = limit
        self._create_connection = self._connected  # also for the first words to a proxy

    def _connected(self, address, *_):
        plain = socket.create_connection(address, self.limit.left_s())
        connected = _Socket(fileno=plain.detach())
        connected.limit = self.limit
        connected.settimeout(self.limit.left_s())  # of a TLS handshake
        return connected

    def send(self, data):
        try:
            super().send(data)
        except (BrokenPipeError, ConnectionResetError):
            if self.sock is None:
                raise


class _Http(urllib.request.HTTPHandler):
    def __init__(self, limit):
        super().__init__()
        self._limit = limit

    def http_open(self, request):
        return self.do_open(functools.partial(_Connection, limit=self._limit), request)


class _Https(urllib.request.AbstractHTTPHandler):
    """TLS is loaded at the first https URL, which may be a redirect's."""

    https_request = urllib.request.AbstractHTTPHandler.do_request_

    def __init__(self, limit):
        super().__init__()
        self._limit = limit

    def https_open(self, request):
        import ssl

        class Socket(_Limited, ssl.SSLSocket):
            pass

        class Connection(_Connection, http.client.HTTPSConnection):
            def connect(self):
                super().connect()
                self.sock.limit = self.limit

        context = _context(ssl)
        context.sslsocket_class = Socket
        return self.do_open(
            functools.partial(Connection, limit=self._limit, context=context), request
        )


def _context(ssl):
    bundle = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    client = os.environ.get(CLIENT_CERTIFICATE)
    for name, path in ((CERTIFICATES[0], bundle), (CLIENT_CERTIFICATE, client)):
        if path and not os.access(path, os.R_OK):
            raise Denied(f"the file {path} with certificates cannot be read", f"Correct {name}.")
    context = ssl.create_default_context(cafile=bundle)
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if client:
        context.load_cert_chain(client)
    return context


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A redirect keeps method and body (307, 308) or is followed by a GET of a GET; the login goes
    only where it may.
    """

    # urllib has it from Python 3.11 on
    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302

    def __init__(self, authorize):
        self._authorize = authorize

    def redirect_request(self, request, response, code, message, headers, url):
        if code not in (307, 308) and request.get_method() not in ("GET", "HEAD"):
            raise urllib.error.HTTPError(request.full_url, code, message, headers, response)
        if hasattr(request.data, "seek"):
            request.data.seek(0)
        further = urllib.request.Request(
            url.replace(" ", "%20"),
            data=request.data,
            headers=request.headers,
            origin_req_host=request.origin_req_host,
            unverifiable=True,
            method=request.get_method(),
        )
        _authorize(further, self._authorize)
        return further


def _opener(limit: Limit, authorize) -> urllib.request.OpenerDirector:
    """For http and https alone: a redirect leads nowhere else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(authorize),
        _Http(limit),
        _Https(limit),
    ):
        opener.add_handler(handler)
    return opener
