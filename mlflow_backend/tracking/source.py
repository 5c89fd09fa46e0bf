"""MLflow's tags for the source of a run's project."""

import os

from mlflow_backend import mlflow_internals
from mlflow_backend.errors import redact, without_logins
from mlflow_backend.files import git_checkout
from mlflow_backend.request.project import Project


def tags(project: Project) -> dict[str, str]:
    """The tags of a project's run as MLflow's own backends set them (mlflow/projects/utils.py,
    `_create_run`).

    The parent is the active run, else the run that this process belongs to (MLFLOW_RUN_ID).
    """
    from mlflow.entities import SourceType
    from mlflow.tracking import fluent

    names = mlflow_internals.tag_names()
    uri = redact(project.uri)
    checkout = git_checkout.describe(project.work_dir, project.fetched and project.fetched.parent)
    is_branch = checkout and git_checkout.is_branch(project.work_dir, project.version)
    active = fluent.active_run()
    values = {
        names.MLFLOW_USER: mlflow_internals.user(),
        names.MLFLOW_SOURCE_NAME: _in_repository(mlflow_internals.expand_uri(uri), checkout)
        if mlflow_internals.is_local_uri(uri)
        else mlflow_internals.expand_uri(uri),
        names.MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.PROJECT),
        names.MLFLOW_PROJECT_ENTRY_POINT: project.entry_point,
        names.MLFLOW_GIT_COMMIT: checkout and checkout.commit,
        names.MLFLOW_PARENT_RUN_ID: active.info.run_id
        if active
        else os.environ.get("MLFLOW_RUN_ID"),
        names.MLFLOW_GIT_REPO_URL: checkout and checkout.url and without_logins(checkout.url),
        names.MLFLOW_GIT_BRANCH: project.version if is_branch else None,
    }
    return {name: redact(value) for name, value in values.items() if value}


def _in_repository(path: str, checkout: git_checkout.Checkout | None) -> str:
    """The path of a folder; `file://REPOSITORY#FOLDER` if it is in a work tree."""
    if checkout is None:
        return path
    folder = os.path.relpath(os.path.realpath(path), checkout.top)
    if folder.startswith(".."):
        return path
    return f"file://{checkout.top}" + ("" if folder == "." else f"#{folder}")
