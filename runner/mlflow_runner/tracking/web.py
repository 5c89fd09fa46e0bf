"""HTTP requests with the standard library, each with a limit on its total time: no server can block
its caller.

Redirects are followed as MLflow's client (requests) follows them, including 307 and 308 of a POST
or PUT. TLS settings are those of MLflow's client.
"""

import functools
import http.client
import os
import platform
import socket
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional
from urllib.parse import urlsplit

from mlflow_runner import VERSION
from mlflow_runner.contract.answers import (
    DENIED_STATUS,
    NOT_THERE,
    TRANSIENT_STATUS,
    Denied,
    Missing,
    Refused,
    TooLarge,
    Unavailable,
)
from mlflow_runner.tracking import login

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPMessage, HTTPResponse
    from typing import IO, Tuple, Union
    from urllib.request import Request

    Data = Union[None, bytes, IO[bytes]]
    Address = Tuple[Optional[str], int]
    Authorize = Callable[[str], Optional[str]]
    """The value of the header Authorization for a URL; None: no login."""

USER_AGENT = f"mlflow-compute/{VERSION} Python/{platform.python_version()}"
CALL_S = 30.0
"""The limit of a call, from connecting to the last byte of the answer, without the DNS look-up."""
MIN_RATE = 64 * 1024
"""Bytes per second: the limit of a file transfer is `CALL_S` plus the file's time at this rate."""
BLOCK_BYTES = 1 << 20
CERTIFICATES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CLIENT_CERTIFICATE = "MLFLOW_TRACKING_CLIENT_CERT_PATH"
MAX_TEXT_CHARS = 300
BAD_LOGIN = "correct the target's 'secret' or 'tracking_auth', or your own login"
BAD_ADDRESS = "check the tracking URI, and that the run still exists"


class Limit:
    """The time at which a request must be complete."""

    def __init__(self, seconds: float) -> None:
        self._until_s = time.monotonic() + seconds

    def extend(self, size: int) -> None:
        """Add the time that `size` further bytes take at the minimum rate."""
        self._until_s += size / MIN_RATE

    def left_s(self) -> float:
        """The remaining time. Raises TimeoutError if there is none."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no complete answer in time")
        return left_s


def send(
    method: str,
    url: str,
    data: "Data" = None,
    headers: Optional[Dict[str, str]] = None,
    limit: Optional[Limit] = None,
    authorize: "Authorize" = lambda url: None,
) -> "HTTPResponse":
    """The response to one request; the limit includes reading it. `authorize` is called for `url`
    and for the target of each redirect.

    Raises Unavailable, or a class of Refused. No message contains a header.
    """
    limit = limit or Limit(CALL_S)
    what = f"{method} {urlsplit(url).path}"
    try:
        request = urllib.request.Request(  # noqa: S310  # the opener has http and https only
            url, data=data, headers={"User-Agent": USER_AGENT, **(headers or {})}, method=method
        )
        _add_login(request, authorize)
        response: "HTTPResponse" = _make_opener(limit, authorize).open(request)
    except urllib.error.HTTPError as error:
        raise _translate_answer(what, error) from None
    except (OSError, http.client.HTTPException) as error:
        raise _translate_failure(what, urlsplit(url).netloc, error) from None
    except ValueError as error:  # its text may contain a header
        raise Refused(f"{what}: the request is invalid ({type(error).__name__})") from None
    return response


def download(url: str, path: str, authorize: "Authorize" = lambda url: None) -> None:
    """Write the body of `url` to the file.

    Raises OSError if the file cannot be written, otherwise as `send`. An incomplete body is
    Unavailable; `http.client` does not report it.
    """
    limit, what = Limit(CALL_S), f"GET {urlsplit(url).path}"
    response = send("GET", url, limit=limit, authorize=authorize)
    with response, open(path, "wb") as file:
        while block := _read_block(response, what):
            limit.extend(len(block))
            file.write(block)
        if response.length:
            raise Unavailable(f"{what}: the answer lacks its last {response.length} bytes")


def _read_block(response: "HTTPResponse", what: str) -> bytes:
    try:
        return response.read(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(login.hide(f"{what}: {type(error).__name__}: {error}")) from None


def read(response: "HTTPResponse", limit_bytes: int) -> bytes:
    """The body of a response. Raises OSError, HTTPException, or ValueError if it is larger."""
    with response:
        data = response.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"the answer has more than {limit_bytes} bytes")
    return data


def _add_login(request: "Request", authorize: "Authorize") -> None:
    value = authorize(request.full_url)
    if value:
        request.add_unredirected_header("Authorization", value)


def _translate_answer(what: str, error: urllib.error.HTTPError) -> Exception:
    """The exception for an answer with an error status."""
    code, to = error.code, error.headers.get("Location") if error.headers else None
    message = f"{what}: {code} {_read_text(error)}".rstrip() + (
        f" to {to.split('?')[0]}" if to and 300 <= code < 400 else ""
    )
    if code >= 500 or code in TRANSIENT_STATUS:
        return Unavailable(message)
    if code in DENIED_STATUS:
        return Denied(message, BAD_LOGIN)
    if code == 404:
        missing = Missing(message, BAD_ADDRESS)
        missing.is_mlflows = NOT_THERE in message
        return missing
    return TooLarge(message) if code == 413 else Refused(message)


def _read_text(error: urllib.error.HTTPError) -> str:
    """The beginning of an answer, as one printable line."""
    try:
        with error:
            text = error.read(2 * MAX_TEXT_CHARS).decode(errors="replace")
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    text = "".join(char if char.isprintable() else " " for char in login.hide(text))
    return " ".join(text.split())[:MAX_TEXT_CHARS]


def _translate_failure(what: str, host: str, error: Exception) -> Exception:
    """The exception for a request without a complete answer."""
    reason = getattr(error, "reason", error)
    if hasattr(reason, "verify_message"):  # of ssl.SSLCertVerificationError
        return Denied(
            f"{what}: the certificate of {host} is not trusted ({reason.verify_message})",
            f"set {CERTIFICATES[0]} to a file with the certificate of its authority",
        )
    return Unavailable(login.hide(f"{what}: {type(reason).__name__}: {reason}"))


class _Socket(socket.socket):
    """A socket whose operations each have the time that is left of `limit`."""

    limit: Optional[Limit] = None

    def _set_timeout(self) -> None:
        if self.limit:
            self.settimeout(self.limit.left_s())

    def recv_into(self, *arguments: Any, **keywords: Any) -> int:
        self._set_timeout()
        return super().recv_into(*arguments, **keywords)

    def send(self, *arguments: Any, **keywords: Any) -> int:
        self._set_timeout()
        return super().send(*arguments, **keywords)

    def sendall(self, *arguments: Any, **keywords: Any) -> None:
        self._set_timeout()
        return super().sendall(*arguments, **keywords)


class _Connection(http.client.HTTPConnection):
    """A connection that reads the answer of a server that closes before it has read the whole
    request (413).
    """

    def __init__(self, *arguments: Any, limit: Limit, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.limit = limit
        self._create_connection = self._connect_socket  # includes the CONNECT to a proxy

    def _connect_socket(self, address: "Address", *_: Any) -> _Socket:
        plain = socket.create_connection(address, self.limit.left_s())
        limited = _Socket(fileno=plain.detach())
        limited.limit = self.limit
        limited.settimeout(self.limit.left_s())  # of a TLS handshake
        return limited

    def send(self, data: Any) -> None:
        try:
            super().send(data)
        except (BrokenPipeError, ConnectionResetError):
            if self.sock is None:
                raise


class _Http(urllib.request.HTTPHandler):
    def __init__(self, limit: Limit) -> None:
        super().__init__()
        self._limit = limit

    def http_open(self, request: "Request") -> "HTTPResponse":
        return self.do_open(functools.partial(_Connection, limit=self._limit), request)


class _Https(urllib.request.AbstractHTTPHandler):
    """Imports ssl at the first https URL, which may be that of a redirect."""

    https_request = urllib.request.AbstractHTTPHandler.do_request_

    def __init__(self, limit: Limit) -> None:
        super().__init__()
        self._limit = limit

    def https_open(self, request: "Request") -> "HTTPResponse":
        import ssl

        class Socket(_Socket, ssl.SSLSocket):
            pass

        class Connection(_Connection, http.client.HTTPSConnection):
            sock: Socket

            def connect(self) -> None:
                super().connect()
                self.sock.limit = self.limit

        context = _make_context()
        context.sslsocket_class = Socket
        return self.do_open(
            functools.partial(Connection, limit=self._limit, context=context), request
        )


def _make_context() -> "ssl.SSLContext":
    import ssl

    bundle = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    client = os.environ.get(CLIENT_CERTIFICATE)
    for name, path in ((CERTIFICATES[0], bundle), (CLIENT_CERTIFICATE, client)):
        if path and not os.access(path, os.R_OK):
            raise Denied(f"could not read the certificate file {path}", f"correct {name}")
    context = ssl.create_default_context(cafile=bundle)
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if client:
        context.load_cert_chain(client)
    return context


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a 307 or 308 with the same method and body, and other redirects of a GET or HEAD. The
    login goes only to hosts that may receive it.
    """

    # urllib defines it since Python 3.11
    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302

    def __init__(self, authorize: "Authorize") -> None:
        self._authorize = authorize

    def redirect_request(
        self,
        request: "Request",
        response: "IO[bytes]",
        code: int,
        message: str,
        headers: "HTTPMessage",
        url: str,
    ) -> "Request":
        if code not in (307, 308) and request.get_method() not in ("GET", "HEAD"):
            raise urllib.error.HTTPError(request.full_url, code, message, headers, response)
        rewind = getattr(request.data, "seek", None)
        if rewind:
            rewind(0)
        target = urllib.request.Request(  # noqa: S310  # as in `send`
            url.replace(" ", "%20"),
            data=request.data,
            headers=request.headers,
            origin_req_host=request.origin_req_host,
            unverifiable=True,
            method=request.get_method(),
        )
        _add_login(target, self._authorize)
        return target


def _make_opener(limit: Limit, authorize: "Authorize") -> urllib.request.OpenerDirector:
    """For http and https only, also in a redirect."""
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
