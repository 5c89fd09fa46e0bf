"""One login to one API server: every call of this package goes through a `Connection`."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeAlias

from mlflow_backend.errors import ClusterError, ClusterUnavailable
from mlflow_backend.places.kubernetes.client import answers, kubeconfig
from mlflow_backend.places.kubernetes.client.kubeconfig import Login
from mlflow_backend.places.kubernetes.client.streams import Stop, blocks

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 60
REPEATS = 10
"""How often a call is repeated when the server asks for it (Retry-After), as client-go does."""
CLOCK_S = 2.0
"""A difference of clocks up to this is due to the server's answer having whole seconds."""

Call: TypeAlias = Callable[..., Any]
"""Gets the Clients and the library's keywords for a raw answer; returns a urllib3 response."""


class Clients(NamedTuple):
    """The client library's view of the API, with the credentials of one login."""

    core: Any
    batch: Any
    coordination: Any
    version: Any


class Connection:
    """Calls as one user, with one-line errors. Credentials are renewed in place, so threads that
    read continue.

    `on_call` is called with every request, `list Pods` for example. `sleep` waits for a number of
    seconds, and returns early when the connection is closed.
    """

    def __init__(self, login: Login, namespace: str) -> None:
        self.on_call: Callable[[str], None] = lambda what: None
        self.closing = Stop()
        self.sleep: Callable[[float], Any] = self.closing.wait
        self.namespace = namespace
        self._clock_offset_s = 0.0
        self._renewing = threading.Lock()
        self.use(login)

    @property
    def context(self) -> str:
        """The name of the kubeconfig's context."""
        return self._login.context

    @property
    def _login(self) -> Login:
        return self._session[0]

    def use(self, login: Login) -> None:
        """Make further calls with this login; calls under way keep theirs."""
        self._session = login, _clients(login)

    def now_s(self) -> float:
        """The time of the API server's last answer plus what has passed since, in seconds since the
        epoch: this machine's clock may be wrong.
        """
        return time.time() + self._clock_offset_s

    def ask(self, what: str, call: Call, is_safe: bool = True) -> dict[str, Any]:
        """The JSON object that the server answers. `is_safe`: the call may be executed twice.

        Raises ClusterError; ClusterUnavailable if the same call may succeed later.
        """
        with self._errors(what):
            return self._parse(what, self._request(what, call, is_safe=is_safe))

    def find(
        self,
        what: str,
        call: Call,
        none_on: Collection[int],
        is_safe: bool = True,
        timeout_s: float = REQUEST_TIMEOUT_S,
        repeats: int = REPEATS,
    ) -> dict[str, Any] | None:
        """As `ask`, but None for the HTTP statuses `none_on`."""
        with self._errors(what):
            response = self._request(what, call, none_on, is_safe, timeout_s, repeats)
            return None if response is None else self._parse(what, response)

    def _parse(self, what: str, response: Any) -> dict[str, Any]:
        answer = answers.parse(response.data)
        if answer is None:
            raise ClusterUnavailable(
                f"{self._where}: cannot {what}: {self._login.server} did not answer as a "
                "Kubernetes API server does",
                hint="check the server's address and proxies",
            )
        return answer

    @contextlib.contextmanager
    def stream(
        self, what: str, call: Call, silence_s: float, stop: Stop
    ) -> Iterator[Iterator[bytes]]:
        """The blocks of a streamed answer, until it ends or `stop` is set.

        Raises ClusterError as `ask` does, also when nothing arrives for `silence_s` seconds.
        """
        from urllib3.exceptions import HTTPError

        with self._errors(what):
            response = self._request(what, call, timeout_s=silence_s)
            with stop.reading(response):
                try:
                    yield iter(()) if stop.is_set() else blocks(response)
                except HTTPError:
                    if not stop.is_set():
                        raise

    def _request(
        self,
        what: str,
        call: Call,
        none_on: Collection[int] = (),
        is_safe: bool = True,
        timeout_s: float = REQUEST_TIMEOUT_S,
        repeats: int = REPEATS,
    ) -> Any:
        """The raw answer; None for the statuses `none_on`. A call that the server rejected before
        it executed it is repeated: with a new login, or when the server asks for it.

        A safe call is also repeated, once, when the server closed an idle connection.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import ProtocolError

        timeouts = (min(CONNECT_TIMEOUT_S, timeout_s), timeout_s)
        login_is_new, connection_is_new = False, False
        while True:
            if self.closing.is_set():
                raise ClusterError(f"cannot {what}: the process is exiting")
            self.on_call(" ".join(what.split()[:2]))
            login, clients = self._current()
            began_s = time.monotonic()
            try:
                response = call(clients, _preload_content=False, _request_timeout=timeouts)
            except ApiException as error:
                self._note(what, error.status, error.headers or {}, began_s)
                if error.status in none_on:
                    return None
                if error.status == 401 and not login_is_new:
                    self._renew(login)
                    login_is_new = True
                elif repeats > 0 and self._wait_for_retry(what, error, is_safe):
                    repeats -= 1
                else:
                    raise
            except ProtocolError:
                if connection_is_new or not is_safe:
                    raise
                connection_is_new = True
            else:
                self._note(what, response.status, response.headers, began_s)
                return response

    def _wait_for_retry(self, what: str, error: Any, is_safe: bool) -> bool:
        """Wait as long as the server (an ApiException) asks; False if it asks for no retry."""
        after_s = answers.repeat_after_s(error, is_safe)
        if after_s is None:
            return False
        log.info("cannot %s, retrying in %g s: %s", what, after_s, answers.message_of(error))
        self.sleep(after_s)
        return True

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
                raise ClusterUnavailable(error.message, code=error.code, hint=error.hint) from None
            if login.server != used.server:
                raise ClusterError(
                    f"{self._where}: the kubeconfig's server was {used.server} and is now "
                    f"{login.server}",
                    code="UnknownCluster",
                    hint="start again",
                )
            self.use(login)

    def _note(self, what: str, status: int, headers: Mapping[str, str], began_s: float) -> None:
        """Log one answer and read the server's clock from it."""
        log.debug("%s: %s, %.0f ms", what, status, (time.monotonic() - began_s) * 1000)
        try:
            offset_s = parsedate_to_datetime(headers["Date"]).timestamp() - time.time()
        except (KeyError, TypeError, ValueError):
            return
        self._clock_offset_s = offset_s if abs(offset_s) > CLOCK_S else 0.0

    @property
    def _where(self) -> str:
        return f"context {self.context}, namespace {self.namespace}"

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        import urllib3
        from kubernetes.client import ApiException

        try:
            yield
        except ApiException as error:
            raise answers.from_status(what, self._where, error) from None
        except urllib3.exceptions.HTTPError as error:
            raise answers.from_transport(self._login.server, self.context, error) from None


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
