"""The MLflow side of a submit: the run, where pods find the tracking server, and what a client
there needs.
"""

import contextlib
import os
import re
import traceback
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_backend.credentials import has_credential, is_credential_name
from mlflow_backend.errors import TrackingError, TrackingUnavailable, redact, without_logins
from mlflow_backend.files import git_checkout
from mlflow_backend.request.project import Project
from mlflow_runner.contract.causes import Cause

FORWARDED = re.compile(
    r"MLFLOW_(TRACKING|HTTP|S3|GCS|ENABLE|ARTIFACT|MULTIPART|ASYNC|SYSTEM_METRICS|LOG|REGISTRY|REQUESTER|TRUNCATE|DISABLE|WORKSPACE)\w*"
)
"""Settings of MLflow that mean something to a client elsewhere; a server's own (store URIs, secret
keys) do not match.
"""
SET_FOR_EACH_RUN = {
    "MLFLOW_TRACKING_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_DIR",
}
FILES = {"MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"}
TRANSIENT = {
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "CANCELLED",
    "ABORTED",
}
"""MLflow's codes of errors that the same call may not meet again."""
TRANSIENT_STATUS = {408, 425, 429}
"""Of HTTP, as are all from 500 on: https://www.rfc-editor.org/rfc/rfc9110#section-15"""
NOT_FROM_A_POD = ("localhost", "127.", "0.0.0.0", "::1")


@dataclass(frozen=True)
class Settings:
    """MLflow variables for a client elsewhere: `plain` ones, `secret` ones, and `files` by the
    variable that holds their path.
    """

    plain: Mapping[str, str]
    secret: Mapping[str, str]
    files: Mapping[str, bytes]


def settings(environ: Mapping[str, str], tracking_uri: str) -> tuple[str, Settings]:
    """The tracking URI without credentials, and every MLflow setting of `environ` that a client
    elsewhere needs.

    Raises TrackingError when a certificate file cannot be read.
    """
    plain, secret, files = {}, {}, {}
    for name, value in environ.items():
        if not FORWARDED.fullmatch(name) or name in SET_FOR_EACH_RUN or not value:
            continue
        if name in FILES:
            try:
                files[name] = Path(value).read_bytes()
            except OSError as error:
                raise TrackingError(f"{name}: {value} cannot be read: {error.strerror}") from None
        else:
            (secret if is_credential_name(name) or has_credential(value) else plain)[name] = value
    plain_uri, credentials = split_credentials(tracking_uri)
    return plain_uri, Settings(
        plain, secret | _login(tracking_uri, secret | credentials) | credentials, files
    )


def _login(uri: str, known: Mapping[str, str]) -> dict[str, str]:
    """The login that MLflow's client takes from its credentials file or from .netrc, where no
    variable holds one.

    https://mlflow.org/docs/latest/auth/ (credentials file), mlflow#11214.
    """
    if known or not uri.startswith(("http://", "https://")):
        return {}
    from mlflow.utils.credentials import read_mlflow_creds
    from requests.utils import get_netrc_auth

    found = read_mlflow_creds()
    user, password = (
        (found.username, found.password) if found.username else get_netrc_auth(uri) or (None, None)
    )
    return (
        {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password or ""}
        if user
        else {}
    )


def split_credentials(uri: str) -> tuple[str, dict[str, str]]:
    """The URI without user and password, and these as the variables that MLflow's client reads."""
    parsed = urllib.parse.urlsplit(uri)
    if parsed.scheme not in ("http", "https") or not parsed.username:
        return uri, {}
    plain = urllib.parse.urlunsplit(parsed._replace(netloc=parsed.netloc.rpartition("@")[2]))
    return plain, {
        "MLFLOW_TRACKING_USERNAME": urllib.parse.unquote(parsed.username),
        "MLFLOW_TRACKING_PASSWORD": urllib.parse.unquote(parsed.password or ""),
    }


def uri_for_pods(
    target_uri: str | None, client_uri: str, target: str, on_host_network: bool
) -> str:
    """The tracking URI that a pod uses: the target's, else the client's.

    Raises TrackingError when a pod cannot reach it: a file, a database of this
    machine, or localhost (unless the pods are on the host's network).
    """
    uri = target_uri or client_uri
    parsed = urllib.parse.urlsplit(uri)
    host = parsed.hostname or ""
    remote = parsed.scheme in ("http", "https") and (
        on_host_network or not host.startswith(NOT_FROM_A_POD)
    )
    if remote or parsed.scheme.startswith(("databricks", "postgresql", "mysql", "mssql")):
        return uri
    raise TrackingError(
        f"tracking URI {uri}: a pod of target '{target}' cannot reach it; set MLFLOW_TRACKING_URI "
        "to a server's address that is valid in the cluster, or 'tracking_uri' in the targets file"
    )


def uri_for_here(client_uri: str) -> str:
    """The tracking URI with its path made absolute: the command runs in the project's folder, not
    in this one.
    """
    relative = re.fullmatch(r"(sqlite:///)(?!/)(.+)", client_uri)
    if relative:
        return relative[1] + os.path.abspath(relative[2])
    if "://" not in client_uri and not client_uri.startswith(("file:", "databricks")):
        return Path(client_uri).absolute().as_uri()
    return client_uri


def client_warning(version: str | None, uri: str) -> str | None:
    """A sentence where an MLflow client of `version` may not be understood by the server at `uri`.

    A server must not be older than its clients; it is asked only when the version is not this
    client's own.
    """
    from mlflow.version import VERSION

    if version in (None, VERSION) or not uri.startswith(("http://", "https://")):
        return None
    server = _server_version(uri)
    if server is None or _minor(version) <= _minor(server):
        return None
    return (
        f"the environment has mlflow {version}, newer than the tracking server's {server}: what it "
        f"logs may be refused; list mlflow<={server} instead"
    )


def _server_version(uri: str) -> str | None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        response = http_request(
            get_default_host_creds(uri), "/version", "GET", timeout=5, max_retries=0
        )
        return (
            response.text.strip()
            if response.ok and re.match(r"\d+\.\d+", response.text.strip())
            else None
        )
    except MlflowException:
        return None  # whether it can be reached is found out, and said, when the run is created


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def run_url(tracking_uri: str, experiment_id: str, run_id: str) -> str | None:
    """The run's page in MLflow's UI; None where no server is there to show it."""
    if not tracking_uri.startswith(("http://", "https://")):
        return None
    server = split_credentials(tracking_uri)[0].rstrip("/")
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}"


def create_run(project: Project, experiment_id: str, run_id: str | None):
    """The MLflow run of a submit: a new one as MLflow's own backends make it, or `run_id` taken up
    again.

    Returns an mlflow.entities.Run. Raises TrackingError; a run that cannot be continued is left as
    it is.
    """
    if run_id:
        return _continue_run(project, run_id)
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    with one_line("the run cannot be created"):
        run = client.create_run(experiment_id, tags=_source_tags(project))
    try:
        with one_line(f"run {run.info.run_id}: its parameters are refused"):
            client.log_batch(run.info.run_id, params=_params(project))
    except BaseException as error:
        fail(run.info.run_id, error)
        raise
    return run


def _continue_run(project: Project, run_id: str):
    from mlflow.tracking import MlflowClient

    from mlflow_runner.contract.tags import (
        END_TAGS,
        TAG_ATTEMPT,
        TAG_JOB,
        TAG_JOB_UID,
        TAG_NODE,
        TAG_POD,
    )

    client = MlflowClient()
    with one_line(f"run {run_id} cannot be continued"):
        run = client.get_run(run_id)
        client.log_batch(run_id, params=_params(project))
        # first: the earlier Job tells nothing about this run any more
        for tag in (TAG_JOB_UID, TAG_JOB):
            if tag in run.data.tags:
                _remove_tag(client, run_id, tag)
        # as a new one; a status KILLED without a cause means that its user wants it stopped
        client.update_run(run_id, "RUNNING")
        for tag in {*END_TAGS, TAG_NODE, TAG_POD, TAG_ATTEMPT} & set(run.data.tags):
            _remove_tag(client, run_id, tag)
    return run


def _source_tags(project: Project) -> dict[str, str]:
    """The tags of a project's run as MLflow's own backends set them (mlflow/projects/utils.py,
    `_create_run`).

    The parent is the active run, else the run of the process that we are in (MLFLOW_RUN_ID).
    """
    from mlflow.entities import SourceType
    from mlflow.projects.utils import _expand_uri, _is_local_uri
    from mlflow.tracking import fluent
    from mlflow.tracking.context.default_context import _get_user
    from mlflow.utils import mlflow_tags as names

    uri = redact(project.uri)
    checkout = git_checkout.describe(project.work_dir, project.fetched and project.fetched.parent)
    is_branch = checkout and git_checkout.is_branch(project.work_dir, project.version)
    active = fluent.active_run()
    tags = {
        names.MLFLOW_USER: _get_user(),
        names.MLFLOW_SOURCE_NAME: _in_repository(_expand_uri(uri), checkout)
        if _is_local_uri(uri)
        else _expand_uri(uri),
        names.MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.PROJECT),
        names.MLFLOW_PROJECT_ENTRY_POINT: project.entry_point,
        names.MLFLOW_GIT_COMMIT: checkout and checkout.commit,
        names.MLFLOW_PARENT_RUN_ID: active.info.run_id
        if active
        else os.environ.get("MLFLOW_RUN_ID"),
        names.MLFLOW_GIT_REPO_URL: checkout and checkout.url and without_logins(checkout.url),
        names.MLFLOW_GIT_BRANCH: project.version if is_branch else None,
    }
    return {name: redact(value) for name, value in tags.items() if value}


def _in_repository(path: str, checkout: git_checkout.Checkout | None) -> str:
    """The path of a folder as `file://REPOSITORY#FOLDER` where it is in the work tree of one."""
    if checkout is None:
        return path
    below = os.path.relpath(os.path.realpath(path), checkout.top)
    return (
        path
        if below.startswith("..")
        else f"file://{checkout.top}" + ("" if below == "." else f"#{below}")
    )


def get_run(run_id: str):
    """The run (an mlflow.entities.Run). Raises TrackingError."""
    from mlflow.tracking import MlflowClient

    with one_line(f"run {run_id}"):
        return MlflowClient().get_run(run_id)


def tag(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of the run. Raises TrackingError."""
    from mlflow.entities import RunTag
    from mlflow.tracking import MlflowClient

    with one_line(f"run {run_id} cannot be tagged"):
        MlflowClient().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def schedule(run_id: str) -> None:
    """Say that the run is submitted and does not run yet. Raises TrackingError."""
    from mlflow.tracking import MlflowClient

    with one_line(f"run {run_id} cannot be updated"):
        MlflowClient().update_run(run_id, "SCHEDULED")


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn what MLflow's client raises into a TrackingError of one line that begins with `what`; an
    outage is a TrackingUnavailable.
    """
    from mlflow import get_tracking_uri
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        outage = _outage(error)
        if outage:
            where = f"tracking server {get_tracking_uri()} cannot be reached"
            raise TrackingUnavailable(
                f"{what}: {where}: {outage}: check MLFLOW_TRACKING_URI"
            ) from None
        kind = TrackingUnavailable if _is_transient(error) else TrackingError
        raise kind(f"{what}: {str(error).splitlines()[0]}") from None


def _is_transient(error: Any) -> bool:
    """Of an answer that is not MLflow's own (a proxy's, which may be JSON too), the HTTP status
    says it.
    """
    told = getattr(error, "json", None)
    is_mlflows = isinstance(told, Mapping) and told.get("error_code") == error.error_code
    status = None if is_mlflows else _status(error)
    if status is not None:
        return status in TRANSIENT_STATUS or not 400 <= status < 500
    return error.error_code in TRANSIENT


def _status(error: BaseException) -> int | None:
    """The HTTP status of the answer that MLflow's client raised the error for: the error itself
    does not hold it.
    """
    from requests import Response

    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(response := frame.f_locals.get("response"), Response):
            return response.status_code
    return None


def _outage(error: BaseException | None) -> str | None:
    """What the operating system says of a server that could not be reached; None where the server
    answered.
    """
    from requests import RequestException

    while error is not None and not isinstance(error, RequestException):
        error = error.__context__
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, RequestException):
            return error.strerror or str(error)
        error = error.__context__
    return None


def _params(project: Project) -> list:
    """The params of the entry point, as MLflow logs them for a run that it creates, without the
    logins of URIs.
    """
    from mlflow.entities import Param

    declared, extra = project.spec.get_entry_point(project.entry_point).compute_parameters(
        dict(project.parameters), None
    )
    return [Param(key, redact(str(value))) for key, value in {**declared, **extra}.items()]


def artifact_root(experiment_id: str) -> str:
    """Where the experiment's runs store their artifacts (a URI). Raises TrackingError."""
    from mlflow.tracking import MlflowClient

    with one_line(f"experiment {experiment_id}"):
        return MlflowClient().get_experiment(experiment_id).artifact_location


def check_artifact_root(uri: str, experiment_id: str) -> None:
    """Raises TrackingError for a folder of one machine, which pods do not have: logs and models
    would be lost.
    """
    if urllib.parse.urlsplit(uri).scheme in ("", "file"):
        raise TrackingError(
            f"experiment {experiment_id}: stores artifacts in the folder {uri}, which pods do not "
            "have: use an experiment of a server that serves artifacts (mlflow server "
            "--artifacts-destination), or mount the folder with the target's 'pod_template'"
        )


def upload(run_id: str, path: Path, folder: str) -> None:
    """Log the file as an artifact in `folder`. Raises TrackingError."""
    from mlflow.tracking import MlflowClient

    with one_line(f"run {run_id}: {path.name} cannot be uploaded"):
        MlflowClient().log_artifact(run_id, str(path), folder)


def fail(run_id: str, error: BaseException) -> None:
    """Mark the run of a submit that broke FAILED, as far as the tracking server lets us; `error` is
    the one to be raised.
    """
    with contextlib.suppress(TrackingError):
        end(run_id, "FAILED", Cause.SUBMIT_ERROR, str(error) or type(error).__name__)


def end(
    run_id: str, status: str, cause: str | None, message: str, exit_code: int | None = None
) -> None:
    """Write a run's end: its tags in one call, then the removal of an earlier end's, then the
    status. Raises TrackingError.
    """
    from mlflow.entities import RunTag
    from mlflow.tracking import MlflowClient

    from mlflow_runner.contract.ending import end_tags
    from mlflow_runner.contract.tags import END_TAGS

    tags = end_tags(status, cause, message if cause else None, exit_code)
    client = MlflowClient()
    with one_line(f"run {run_id} cannot be updated"):
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        for name in {*END_TAGS} & client.get_run(run_id).data.tags.keys() - tags.keys():
            _remove_tag(client, run_id, name)
        client.set_terminated(run_id, status)


def _remove_tag(client: Any, run_id: str, name: str) -> None:
    """A tag that another process has already removed is not an error: MLflow answers as if the run
    were missing.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.delete_tag(run_id, name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
