"""One login to one API server: every call of this package goes through `Connection.ask` or
`Connection.stream`.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from mlflow_backend.errors import ClusterError, ClusterUnavailable
from mlflow_backend.places.kubernetes.client import answers, kubeconfig
from mlflow_backend.places.kubernetes.client.kubeconfig import Login
from mlflow_backend.places.kubernetes.client.streams import Stop, blocks

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 60
REPEATS = 10
"""How often a call is repeated that the server wants again (Retry-After), as client-go does."""
CLOCK_S = 2.0
"""A difference of clocks up to this is the second's rounding in the server's answer."""


class Clients(NamedTuple):
    """The client library's view of the API, with the credentials of one login."""

    core: Any
    batch: Any
    coordination: Any
    version: Any


class Connection:
    """Calls as one user, with one-line errors. Credentials are renewed in place, so threads that
    read go on reading.

    `on_call` is told of every request, `list Pods` for example. `sleep` waits for as many seconds
    as it is told, and returns early when the connection is closed.
    """

    def __init__(self, login: Login, namespace: str):
        self.on_call: Callable[[str], None] = lambda what: None
        self.closing = Stop()
        self.sleep: Callable[[float], Any] = self.closing.wait
        self.namespace = namespace
        self._clock_offset_s = 0.0
        self._renewing = threading.Lock()
        self.use(login)

    @property
    def context(self) -> str:
        return self._login.context

    @property
    def _login(self) -> Login:
        return self._session[0]

    def use(self, login: Login) -> None:
        """Make further calls with this login; calls under way keep theirs."""
        self._session = login, _clients(login)

    def now_s(self) -> float:
        """The time of the API server's last answer and what has passed since: this machine's clock
        may be wrong.
        """
        return time.time() + self._clock_offset_s

    def ask(
        self,
        what: str,
        call: Callable[..., Any],
        none_on: Collection[int] = (),
        is_safe: bool = True,
        timeout_s: float = REQUEST_TIMEOUT_S,
        repeats: int = REPEATS,
    ) -> dict[str, Any] | None:
        """The JSON object that the server answers; None for the HTTP statuses `none_on`.

        `call` gets the Clients and the library's keywords for a raw answer. `is_safe`: it may be
        executed twice. Raises ClusterError; ClusterUnavailable if the same call may succeed later.
        """
        with self._errors(what):
            raw = {
                "_preload_content": False,
                "_request_timeout": (min(CONNECT_TIMEOUT_S, timeout_s), timeout_s),
            }
            response = self._request(
                what, lambda clients: call(clients, **raw), none_on, is_safe, repeats
            )
            if response is None:
                return None
            try:
                return answers.parse(response.data)
            except ValueError:
                raise ClusterUnavailable(
                    f"{self._where}: cannot {what}: {self._login.server} answered with something "
                    "that is not of a Kubernetes API: check the server's address and proxies"
                ) from None

    @contextlib.contextmanager
    def stream(
        self, what: str, call: Callable[..., Any], silence_s: float, stop: Stop
    ) -> Iterator[Iterator[bytes]]:
        """The blocks of an answer that goes on, until it ends or `stop` is set.

        Raises ClusterError as `ask` does, also when nothing comes for `silence_s` seconds.
        """
        from urllib3.exceptions import HTTPError

        with self._errors(what):
            raw = {"_preload_content": False, "_request_timeout": (CONNECT_TIMEOUT_S, silence_s)}
            response = self._request(what, lambda clients: call(clients, **raw))
            with stop.reading(response):
                try:
                    yield iter(()) if stop.is_set() else blocks(response)
                except HTTPError:
                    if not stop.is_set():
                        raise

    def _request(self, what, call, none_on=(), is_safe=True, repeats=REPEATS):
        """The raw answer. What the server refused before it executed it is repeated: with a new
        login, or when it says so.

        A safe call is also repeated, once, when the server closed a connection that it had kept
        open.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import ProtocolError

        login_is_new, connection_is_new = False, False
        while True:
            if self.closing.is_set():
                raise ClusterError(f"cannot {what}: the process ends")
            self.on_call(" ".join(what.split()[:2]))
            login, clients = self._current()
            began_s = time.monotonic()
            try:
                response = call(clients)
                self._note_time(response.headers)
                log.debug("%s: %s, %.0f ms", what, response.status, _since_ms(began_s))
                return response
            except ApiException as error:
                self._note_time(error.headers or {})
                log.debug("%s: %s, %.0f ms", what, error.status, _since_ms(began_s))
                if error.status in none_on:
                    return None
                after_s = answers.repeat_after_s(error, is_safe)
                if error.status == 401 and not login_is_new:
                    self._renew(login)
                    login_is_new = True
                elif after_s is not None and repeats > 0:
                    log.info(
                        "cannot %s yet: %s; again in %g s", what, answers.message_of(error), after_s
                    )
                    self.sleep(after_s)
                    repeats -= 1
                else:
                    raise
            except ProtocolError:
                if connection_is_new or not is_safe:
                    raise
                connection_is_new = True

    def _current(self) -> tuple[Login, Clients]:
        login = self._login
        if login.expires_s is not None and time.time() >= login.expires_s:
            self._renew(login)
        return self._session

    def _renew(self, used: Login) -> None:
        """Read the credentials again, unless another thread has done so since `used` was read.

        Credentials that were valid and cannot be read now may be readable later:
        ClusterUnavailable.
        """
        with self._renewing:
            if self._login is not used:
                return
            try:
                login = kubeconfig.log_in(used.context)
            except ClusterError as error:
                raise ClusterUnavailable(str(error)) from None
            if login.server != used.server:
                raise ClusterError(
                    f"{self._where}: the kubeconfig's server was {used.server} and is now "
                    f"{login.server}: start again"
                )
            self.use(login)

    def _note_time(self, headers: Any) -> None:
        try:
            offset_s = parsedate_to_datetime(headers["Date"]).timestamp() - time.time()
        except (KeyError, TypeError, ValueError):
            return
        self._clock_offset_s = offset_s if abs(offset_s) > CLOCK_S else 0.0

    @property
    def _where(self) -> str:
        return f"context {self.context}, namespace {self.namespace}"

    @contextlib.contextmanager
    def _errors(self, what):
        import urllib3
        from kubernetes.client import ApiException

        try:
            yield
        except ApiException as error:
            raise answers.from_status(what, self._where, error) from None
        except urllib3.exceptions.HTTPError as error:
            raise answers.from_transport(self._login.server, self.context, error) from None


def _since_ms(began_s: float) -> float:
    return (time.monotonic() - began_s) * 1000


def _clients(login: Login) -> Clients:
    from kubernetes import client

    api_client = client.ApiClient(login.configuration)
    if login.ssl_context:
        api_client.rest_client.pool_manager.connection_pool_kw["ssl_context"] = login.ssl_context
    return Clients(
        client.CoreV1Api(api_client),
        client.BatchV1Api(api_client),
        client.CoordinationV1Api(api_client),
        client.VersionApi(api_client),
    )
