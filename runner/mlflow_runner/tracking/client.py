"""The same calls through MLflow's own client, for every store that plain HTTP does not reach.

MLflow's client sends its login to any web server that an artifact location names; `ClientRun`
refuses such a location unless its host may receive the login. It cannot do so for artifacts that
the user's own script reads.
"""

import contextvars
import errno
import os
import shutil
import sys
import tempfile
import threading
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    MutableMapping,
    Optional,
    Sequence,
    Type,
    TypeVar,
)
from urllib.parse import urlsplit

from mlflow_runner.contract.answers import (
    CODES,
    Denied,
    Missing,
    NeedsMlflow,
    Refused,
    RunInfo,
    TooLarge,
    Unavailable,
    is_transient_status,
)
from mlflow_runner.tracking import WEB_SCHEMES, login, web

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

T = TypeVar("T")

MLFLOW_AGENT = "mlflow-python-client"
"""The start of the User-Agent of MLflow's client
(mlflow/tracking/request_header/default_request_header_provider.py).
"""
PAGE = 200
TRANSFER_S = 300.0
"""The limit of a file transfer: the client of MLflow does not report its progress."""


def disable_retries(environ: MutableMapping[str, str]) -> None:
    """Make MLflow's client try once: the reporter itself retries, and stays responsive between the
    calls.
    """
    environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def import_mlflow() -> Any:
    """The package mlflow, which may be on PYTHONPATH only: this process ignores that (see
    `program.ISOLATED`), so its folders are appended here. Raises NeedsMlflow.
    """
    existing = set(sys.path)
    sys.path += [
        path
        for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if path and path not in existing
    ]
    try:
        import mlflow.artifacts
        import mlflow.tracking
    except ImportError as error:
        raise NeedsMlflow(f"the package mlflow is required: {error}") from None
    return mlflow


def restrict_login(server: str, credential_hosts: Sequence[str]) -> None:
    """Remove the login from every later request of this process's MLflow client to a host that may
    not receive it, redirects included.

    Every request passes the adapter of `requests`. Logins that other libraries have for their own
    stores remain.
    """
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def send_restricted(
        adapter: HTTPAdapter, request: "PreparedRequest", *arguments: Any, **keywords: Any
    ) -> "Response":
        if not login.may_be_sent(request.url or "", server, credential_hosts) and _has_login(
            request.headers
        ):
            del request.headers["Authorization"]
        return send(adapter, request, *arguments, **keywords)

    # requests has no other hook for every request
    HTTPAdapter.send = send_restricted  # type: ignore[method-assign, assignment]


def _has_login(headers: Mapping[str, Any]) -> bool:
    """Whether the header Authorization is the login to the tracking server: the same value, or,
    if an auth plugin sets it, part of a request of MLflow's client.
    """
    value, agent = headers.get("Authorization"), str(headers.get("User-Agent", ""))
    return value is not None and (agent.startswith(MLFLOW_AGENT) or value == login.authorization())


class ClientRun:
    """One run of the store at `tracking_uri`. Every method raises Unavailable or a class of
    Refused.

    A call that exceeds its limit continues in its thread; until it returns, every other call raises
    Unavailable.
    """

    def __init__(
        self,
        tracking_uri: str,
        run_id: str,
        artifact_uri: str = "",
        credential_hosts: Sequence[str] = (),
    ) -> None:
        self._client: Any = _call_mlflow(import_mlflow().tracking.MlflowClient, tracking_uri)
        self._tracking_uri = tracking_uri
        self._run_id = run_id
        self._artifact_uri = artifact_uri
        self._credential_hosts = credential_hosts
        self._unanswered: Optional[threading.Thread] = None

    def get(self) -> RunInfo:
        """Read the run."""
        return _info(self._call(self._client.get_run, self._run_id))

    def set_status(self, status: str, ended: bool) -> None:
        """Set the status, and the end time if the run has `ended`."""
        if ended:
            self._call(self._client.set_terminated, self._run_id, status)
        else:
            self._call(self._client.update_run, self._run_id, status)

    def log(self, tags: Dict[str, str], metrics: Dict[str, float]) -> None:
        """Set tags and log metrics in one request."""
        from mlflow.entities import Metric, RunTag

        now_ms = int(time.time() * 1000)
        self._call(
            self._client.log_batch,
            self._run_id,
            metrics=[Metric(key, value, now_ms, 0) for key, value in metrics.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def remove_tags(self, names: Iterable[str]) -> None:
        """Remove tags, one by one; a missing tag is not an error."""
        for name in names:
            try:
                self._call(self._client.delete_tag, self._run_id, name)
            except Missing as error:
                if not error.is_mlflows:
                    raise

    def search(self, experiment_id: str, filter_string: str) -> Iterator[RunInfo]:
        """The runs of the experiment that match MLflow's filter."""
        token = None
        while True:
            page = self._call(
                self._client.search_runs,
                [experiment_id],
                filter_string,
                max_results=PAGE,
                page_token=token,
            )
            yield from map(_info, page)
            token = page.token
            if not token:
                return

    def other(self, run_id: str) -> "ClientRun":
        """The client for another run of the same store."""
        return ClientRun(self._tracking_uri, run_id)

    def upload(self, artifact: str, data: bytes) -> None:
        """Store `data` as the artifact."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, os.path.basename(artifact))
            with open(path, "wb") as file:
                file.write(data)
            self.upload_file(artifact, path)

    def upload_file(self, artifact: str, path: str) -> None:
        """Store the file as the artifact. Raises OSError if the file cannot be read."""
        self._check_location(self._artifact_uri)
        folder, name = os.path.split(artifact)
        open(path, "rb").close()  # an unreadable file is not an error of the store
        with tempfile.TemporaryDirectory() as directory:
            if os.path.basename(path) != name:  # MLflow names the artifact after the file
                os.symlink(os.path.abspath(path), os.path.join(directory, name))
                path = os.path.join(directory, name)
            self._call(
                self._client.log_artifact, self._run_id, path, folder or None, limit_s=TRANSFER_S
            )

    def download(self, artifact: str, path: str) -> None:
        """Write the artifact to the file. Raises OSError if the file cannot be written."""
        self._check_location(self._artifact_uri or self.get().artifact_uri)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as directory:
            download: str = _call_mlflow(
                self._client.download_artifacts, self._run_id, artifact, directory
            )
            shutil.move(download, path)

    def _check_location(self, uri: str) -> None:
        """Raises Denied for another web server that may not receive the login."""
        there, home = urlsplit(uri), urlsplit(self._tracking_uri)
        if not there.netloc or there.scheme not in WEB_SCHEMES:
            return
        url = uri if there.scheme != "mlflow-artifacts" else f"{home.scheme}://{there.netloc}"
        if not login.may_be_sent(url, self._tracking_uri, self._credential_hosts):
            raise Denied(
                f"the artifact location is on {there.netloc}, which is not the tracking server and "
                "does not receive its login",
                "add the host to the target's 'credential_hosts'",
            )

    def _call(
        self,
        function: Callable[..., T],
        *arguments: Any,
        limit_s: float = web.CALL_S,
        **keywords: Any,
    ) -> T:
        if self._unanswered and self._unanswered.is_alive():
            raise Unavailable("an earlier call has not been answered yet")
        answers: List[T] = []
        errors: List[Exception] = []
        context = contextvars.copy_context()

        def run() -> None:
            try:
                answers.append(context.run(_call_mlflow, function, *arguments, **keywords))
            except (Unavailable, Refused) as error:
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(limit_s)
        for error in errors:
            raise error
        if not answers:
            self._unanswered = thread
            raise Unavailable(f"no answer within {limit_s:.0f} s")
        return answers[0]


def _call_mlflow(function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """Call MLflow's client. Raises Unavailable or a class of Refused for whatever it raises."""
    from mlflow.exceptions import MlflowException

    try:
        return function(*arguments, **keywords)
    except MlflowException as error:
        kind = CODES.get(error.error_code, Unavailable)
        raise _make_error(kind, str(error), is_mlflows=True) from None
    except Exception as error:  # each artifact store has exceptions of its own
        text = f"{type(error).__name__}: {error}"
        raise _make_error(_kind(error), text, is_mlflows=False) from None


def _make_error(kind: Type[Exception], text: str, is_mlflows: bool) -> Exception:
    message = login.hide(text.strip())
    if kind is Missing:
        missing = Missing(message, web.BAD_ADDRESS)
        missing.is_mlflows = is_mlflows
        return missing
    return Denied(message, web.BAD_LOGIN) if kind is Denied else kind(message)


def _kind(error: Exception) -> Type[Exception]:
    """The exception that stands for one of a store's own library, by the HTTP status in it."""
    if isinstance(error, PermissionError) or (
        isinstance(error, OSError) and error.errno == errno.EROFS
    ):
        return Denied
    code = _http_status(error)
    if code is None or is_transient_status(code):
        return Unavailable
    return {401: Denied, 403: Denied, 404: Missing, 413: TooLarge}.get(code, Refused)


def _http_status(error: Exception) -> Optional[int]:
    """The HTTP status in an exception of requests, botocore, azure or google; None if there is
    none.
    """
    response = getattr(error, "response", None)
    candidates = [
        getattr(response, "status_code", None),
        getattr(error, "status_code", None),
        getattr(error, "code", None),
    ]
    if isinstance(response, dict):
        candidates.append((response.get("ResponseMetadata") or {}).get("HTTPStatusCode"))
    return next((int(code) for code in candidates if isinstance(code, int)), None)


def _info(run: Any) -> RunInfo:
    info = run.info
    deleted = info.lifecycle_stage == "deleted"
    return RunInfo(
        info.status,
        info.artifact_uri,
        dict(run.data.tags),
        info.run_id,
        info.experiment_id,
        deleted,
    )
