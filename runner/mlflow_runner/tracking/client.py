"""The same calls through MLflow's own client, for every store that plain HTTP does not reach.

MLflow's client sends its login to whatever web server an artifact location names; `ClientRun`
refuses such a location instead, unless its host may have the login. It cannot prevent the same for
a run whose artifacts are read by the user's own script.
"""

import contextvars
import errno
import os
import shutil
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, MutableMapping, Optional, Sequence
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
from mlflow_runner.tracking import login, web

MLFLOW_AGENT = "mlflow-python-client"
"""How the User-Agent of MLflow's client begins
(mlflow/tracking/request_header/default_request_header_provider.py).
"""
PAGE = 200
TRANSFER_S = 300.0
"""The limit of a call that moves a file, where MLflow does not say how far it is."""


def be_impatient(environ: MutableMapping[str, str]) -> None:
    """Have MLflow's client try once: the reporter retries by itself, and must stay responsive
    meanwhile.
    """
    environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def import_mlflow() -> Any:
    """The package mlflow, also where only PYTHONPATH leads to it, which this process does not
    search. Raises NeedsMlflow.
    """
    known = set(sys.path)
    sys.path += [
        path
        for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if path and path not in known
    ]
    try:
        import mlflow.artifacts
        import mlflow.tracking
    except ImportError as error:
        raise NeedsMlflow(f"this needs the package mlflow: {error}") from None
    return mlflow


def keep_login_home(server: str, credential_hosts: Sequence[str]) -> None:
    """From now on no request of this process's MLflow client takes the login to a host that may not
    have it, redirects included.

    The one place that every request passes is the adapter of `requests`. A login that another
    library has for its own store stays.
    """
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def send_guarded(adapter, request, *arguments, **keywords):
        if not login.may_be_sent(request.url, server, credential_hosts) and _has_login(
            request.headers
        ):
            del request.headers["Authorization"]
        return send(adapter, request, *arguments, **keywords)

    HTTPAdapter.send = send_guarded


def _has_login(headers) -> bool:
    """Whether this is the tracking server's login: its very value, or, where an auth plugin makes
    it, MLflow's own header.
    """
    value, agent = headers.get("Authorization"), str(headers.get("User-Agent", ""))
    return value is not None and (agent.startswith(MLFLOW_AGENT) or value == login.authorization())


class ClientRun:
    """One run of the store at `tracking_uri`. Every method raises Unavailable or a class of
    Refused.

    A call without an answer is left alone after its limit; until it has one after all, every other
    raises Unavailable.
    """

    def __init__(
        self,
        tracking_uri: str,
        run_id: str,
        artifact_uri: str = "",
        credential_hosts: Sequence[str] = (),
    ):
        self._client = _translated(import_mlflow().tracking.MlflowClient, tracking_uri)
        self._tracking_uri = tracking_uri
        self._run_id = run_id
        self._artifact_uri = artifact_uri
        self._credential_hosts = credential_hosts
        self._unanswered: Optional[threading.Thread] = None

    def get(self) -> RunInfo:
        return _info(self._call(self._client.get_run, self._run_id))

    def set_status(self, status: str, ended: bool) -> None:
        if ended:
            self._call(self._client.set_terminated, self._run_id, status)
        else:
            self._call(self._client.update_run, self._run_id, status)

    def log(self, tags: Dict[str, str], metrics: Dict[str, float]) -> None:
        from mlflow.entities import Metric, RunTag

        now_ms = int(time.time() * 1000)
        self._call(
            self._client.log_batch,
            self._run_id,
            metrics=[Metric(key, value, now_ms, 0) for key, value in metrics.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def remove_tags(self, names: Iterable[str]) -> None:
        """A tag that another process has already removed is not an error."""
        for name in names:
            try:
                self._call(self._client.delete_tag, self._run_id, name)
            except Missing as error:
                if not error.is_mlflows:
                    raise

    def search(self, experiment_id: str, wanted: str) -> Iterator[RunInfo]:
        token = None
        while True:
            page = self._call(
                self._client.search_runs,
                [experiment_id],
                wanted,
                max_results=PAGE,
                page_token=token,
            )
            yield from map(_info, page)
            token = page.token
            if not token:
                return

    def other(self, run_id: str) -> "ClientRun":
        return ClientRun(self._tracking_uri, run_id)

    def upload(self, artifact: str, data: bytes) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, os.path.basename(artifact))
            with open(path, "wb") as file:
                file.write(data)
            self.upload_file(artifact, path)

    def upload_file(self, artifact: str, path: str) -> None:
        """Raises OSError when the file cannot be read."""
        self._check_location(self._artifact_uri)
        folder, name = os.path.split(artifact)
        open(path, "rb").close()  # what cannot be read is no fault of the store
        with tempfile.TemporaryDirectory() as directory:
            if os.path.basename(path) != name:  # MLflow names the artifact after the file
                os.symlink(os.path.abspath(path), os.path.join(directory, name))
                path = os.path.join(directory, name)
            self._call(
                self._client.log_artifact, self._run_id, path, folder or None, limit_s=TRANSFER_S
            )

    def download(self, artifact: str, path: str) -> None:
        self._check_location(self._artifact_uri or self.get().artifact_uri)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as directory:
            found = _translated(self._client.download_artifacts, self._run_id, artifact, directory)
            shutil.move(found, path)

    def _check_location(self, uri: str) -> None:
        """Raises Denied for another web server that may not have the login."""
        place, home = urlsplit(uri), urlsplit(self._tracking_uri)
        if not place.netloc or place.scheme not in ("mlflow-artifacts", "http", "https"):
            return
        url = uri if place.scheme != "mlflow-artifacts" else f"{home.scheme}://{place.netloc}"
        if not login.may_be_sent(url, self._tracking_uri, self._credential_hosts):
            raise Denied(
                f"the artifact location names {place.netloc}, which is not the tracking server: it "
                "does not get the login",
                "List it in the target's 'credential_hosts' to allow that.",
            )

    def _call(self, function: Callable, *arguments, limit_s: float = web.CALL_S, **keywords):
        if self._unanswered and self._unanswered.is_alive():
            raise Unavailable("an earlier call still has no answer")
        answers: List[Callable[[], Any]] = []
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=lambda: answers.append(context.run(_outcome, function, arguments, keywords)),
            daemon=True,
        )
        thread.start()
        thread.join(limit_s)
        if not answers:
            self._unanswered = thread
            raise Unavailable(f"no answer within {limit_s:.0f} s")
        return answers[0]()


def _outcome(function, arguments, keywords) -> Callable[[], Any]:
    """What `function` returns or raises, for another thread."""
    try:
        value = _translated(function, *arguments, **keywords)
        return lambda: value
    except (Unavailable, Refused) as error:
        return lambda error=error: _raise(error)


def _raise(error):
    raise error


def _translated(function, *arguments, **keywords):
    from mlflow.exceptions import MlflowException

    is_mlflows = False
    try:
        return function(*arguments, **keywords)
    except MlflowException as error:
        is_mlflows = True
        words, kind = str(error), CODES.get(error.error_code, Unavailable)
    except Exception as error:  # each artifact store has exceptions of its own
        words, kind = f"{type(error).__name__}: {error}", _kind(error)
    hint = {Denied: web.BAD_LOGIN, Missing: web.BAD_ADDRESS}.get(kind)
    words = login.hide(words.strip())
    translated = kind(words, hint) if hint else kind(words)
    if isinstance(translated, Missing):
        translated.is_mlflows = is_mlflows
    raise translated


def _kind(error: BaseException) -> type:
    """What an exception of a store's own library means, by the HTTP status in it."""
    if isinstance(error, PermissionError) or (
        isinstance(error, OSError) and error.errno == errno.EROFS
    ):
        return Denied
    code = http_status(error)
    if code is None or is_transient_status(code):
        return Unavailable
    return {401: Denied, 403: Denied, 404: Missing, 413: TooLarge}.get(code, Refused)


def http_status(error: BaseException) -> Optional[int]:
    """The HTTP status in an exception of requests, botocore, azure or google; None where there is
    none.
    """
    response = getattr(error, "response", None)
    found = [
        getattr(response, "status_code", None),
        getattr(error, "status_code", None),
        getattr(error, "code", None),
    ]
    if isinstance(response, dict):
        found.append((response.get("ResponseMetadata") or {}).get("HTTPStatusCode"))
    return next((int(code) for code in found if isinstance(code, int)), None)


def _info(run) -> RunInfo:
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
