"""The `docker_env` of an MLproject file."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_backend.errors import ProjectError
from mlflow_backend.request.project import Project

CODE_DIR = "/mlflow/projects/code"
"""Where MLflow puts a project in its image."""


@dataclass(frozen=True)
class DockerEnv:
    """An image, its mounts (`HOST:CONTAINER`, as `docker run --volume` takes them), and variables
    with their values.

    `variables` are written in the project; `inherited` are asked for by name and hold values of the
    submitting user's environment.
    """

    image: str
    volumes: tuple[str, ...]
    variables: Mapping[str, str]
    inherited: Mapping[str, str]


def read(project: Project, environ: Mapping[str, str]) -> DockerEnv | None:
    """The project's docker_env, None when it has none.

    Raises ProjectError naming a variable that is not set in `environ`.
    """
    fields = project.spec.docker_env
    if not fields:
        return None
    variables, inherited = {}, {}
    for entry in fields.get("environment") or ():
        if isinstance(entry, str):
            if entry not in environ:
                raise ProjectError(
                    f"MLproject, docker_env: takes the variable {entry} from your environment, "
                    f"where it is not set: export {entry}=..."
                )
            inherited[entry] = environ[entry]
        elif isinstance(entry, (list, tuple)) and len(entry) == 2:
            variables[str(entry[0])] = str(entry[1])
        else:
            raise ProjectError(
                f"MLproject, docker_env: environment entry {entry!r}: write NAME, or [NAME, VALUE]"
            )
    return DockerEnv(fields["image"], tuple(fields.get("volumes") or ()), variables, inherited)
