"""The `docker_env` of an MLproject file."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_backend.errors import ProjectError
from mlflow_backend.request.project import Project

CODE_DIR = "/mlflow/projects/code"
"""The project's folder in MLflow's images."""


@dataclass(frozen=True)
class DockerEnv:
    """An image, its mounts (`HOST:CONTAINER` as for `docker run --volume`), and variables.

    The project sets `variables`; it names those in `inherited`, whose values are from the user's
    environment.
    """

    image: str
    volumes: tuple[str, ...]
    variables: Mapping[str, str]
    inherited: Mapping[str, str]


def read(project: Project, environ: Mapping[str, str]) -> DockerEnv | None:
    """The project's docker_env, or None.

    Raises ProjectError for a variable that is not set in `environ`.
    """
    fields = project.spec.docker_env
    if not fields:
        return None
    variables, inherited = {}, {}
    for entry in fields.get("environment") or ():
        if isinstance(entry, str):
            if entry not in environ:
                raise ProjectError(
                    f"MLproject, docker_env: the variable {entry} is not set in your environment",
                    code="MissingSetting",
                    hint=f"export {entry}=...",
                )
            inherited[entry] = environ[entry]
        elif isinstance(entry, (list, tuple)) and len(entry) == 2:
            variables[str(entry[0])] = str(entry[1])
        else:
            raise ProjectError(
                f"MLproject, docker_env: environment entry {entry!r} is not valid",
                hint="write NAME, or [NAME, VALUE]",
            )
    return DockerEnv(fields["image"], tuple(fields.get("volumes") or ()), variables, inherited)
