"""MLflow's private functions, which a new release may change.

Each has a test in `tests/unit/test_mlflow_internals.py`. MLflow is imported when a function is
called.
"""

from typing import Any


def user() -> str:
    """MLflow's name for the user of this process."""
    from mlflow.tracking.context.default_context import _get_user

    return str(_get_user())


def stored_login() -> tuple[str | None, str | None]:
    """User and password of MLflow's credentials file (https://mlflow.org/docs/latest/auth/)."""
    from mlflow.utils.credentials import read_mlflow_creds

    login = read_mlflow_creds()
    return login.username, login.password


def get(tracking_uri: str, path: str, timeout_s: float) -> Any:
    """The tracking server's response to one GET request with the login of MLflow's client.

    Raises MlflowException when the server cannot be reached.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    login = get_default_host_creds(tracking_uri)
    return http_request(login, path, "GET", timeout=timeout_s, max_retries=0)


def set_status(run_id: str, status: str) -> None:
    """Set the status of a run that has no end time, in one call to the tracking server.

    MlflowClient.update_run reads the run first. Raises MlflowException.
    """
    from mlflow.entities import RunStatus
    from mlflow.tracking._tracking_service.utils import _get_store

    _get_store().update_run_info(run_id, RunStatus.from_string(status), None, None)


def quote(text: str) -> str:
    """`text` as MLflow quotes a value in a command."""
    from mlflow.utils.string_utils import quote as quoted

    return str(quoted(text))


def local_path(uri: str) -> str:
    """The path of a `file:` URI; a path is returned unchanged."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    return str(local_file_uri_to_path(uri))


def expand_uri(uri: str) -> str:
    """A local project's URI as an absolute path; any other URI is returned unchanged."""
    from mlflow.projects.utils import _expand_uri

    return str(_expand_uri(uri))


def is_local_uri(uri: str) -> bool:
    """Whether a project's URI refers to a folder or a zip on this machine."""
    from mlflow.projects.utils import _is_local_uri

    return bool(_is_local_uri(uri))


def is_zip_uri(uri: str) -> bool:
    """Whether a project's URI refers to a zip."""
    from mlflow.projects.utils import _is_zip_uri

    return bool(_is_zip_uri(uri))


def parse_subdirectory(uri: str) -> tuple[str, str]:
    """A project's URI as its repository and the folder in it (`#FOLDER`)."""
    from mlflow.projects.utils import _parse_subdirectory

    source, folder = _parse_subdirectory(uri)
    return str(source), str(folder)


def fetch_local_project(uri: str, version: str | None) -> str:
    """The folder of a project on this machine. Raises ExecutionException for a `version`."""
    from mlflow.projects.utils import _fetch_project

    return str(_fetch_project(uri, version))


def fetch_git_project(uri: str, version: str | None, folder: str) -> None:
    """Clone a project into `folder`. Raises ExecutionException."""
    from mlflow.projects.utils import _fetch_git_repo

    _fetch_git_repo(uri, version, folder)


def fetch_zip(uri: str) -> str:
    """The path of a project's zip, downloaded if it is not on this machine."""
    from mlflow.projects.utils import _fetch_zip_repo, _is_local_uri, _parse_file_uri

    local = _parse_file_uri(uri)
    return str(local if _is_local_uri(uri) else _fetch_zip_repo(local))


def unzip(file: str, folder: str) -> None:
    """Unpack a project's zip into `folder`."""
    from mlflow.projects.utils import _unzip_repo

    _unzip_repo(file, folder)


def load_project(folder: str) -> Any:
    """MLflow's Project of the MLproject file in `folder`. Raises ExecutionException."""
    from mlflow.projects.utils import load_project as load

    return load(folder)


def check_parameters(entry_point: Any, parameters: dict[str, Any]) -> None:
    """Raises ExecutionException if a parameter without a default is missing."""
    entry_point._validate_parameters(parameters)


def tag_names() -> Any:
    """The module with the names of MLflow's own tags."""
    from mlflow.utils import mlflow_tags

    return mlflow_tags
