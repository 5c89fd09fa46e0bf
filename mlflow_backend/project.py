"""An MLflow Project, read by MLflow's own code, and its command for the place where it will run."""

import contextlib
import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_backend.errors import ComputeError, ProjectError, redact

TYPES_OF_FILES = ("path", "uri")


@dataclass(frozen=True)
class Project:
    """A fetched and parsed project. `work_dir` is absolute."""

    uri: str
    version: str | None
    entry_point: str
    parameters: Mapping[str, Any]
    work_dir: Path
    spec: Any = field(repr=False)

    @property
    def name(self) -> str:
        return self.spec.name or self.work_dir.name

    @property
    def environment_files(self) -> Mapping[str, str]:
        """`conda_env` or `python_env` of the MLproject file, as far as it names one."""
        import yaml
        from mlflow.projects._project_spec import _find_mlproject

        file = _find_mlproject(str(self.work_dir))
        content = yaml.safe_load(Path(file).read_text()) if file else {}
        return {key: content[key] for key in ("conda_env", "python_env") if content.get(key)}

    def discard(self) -> None:
        """Remove the temporary copy of a project that was fetched; a project of this machine is left alone."""
        from mlflow.projects.utils import _is_local_uri, _is_zip_uri, _parse_subdirectory

        uri, subdirectory = _parse_subdirectory(self.uri)
        if _is_zip_uri(uri) or not _is_local_uri(uri):
            depth = len(Path(subdirectory).parts)
            root = [self.work_dir, *self.work_dir.parents][depth]
            if root.parent == Path(tempfile.gettempdir()):  # where MLflow fetches to
                shutil.rmtree(root, ignore_errors=True)


def load(uri: str, version: str | None, entry_point: str, parameters: Mapping[str, Any] | None) -> Project:
    """Fetch and parse the project; nothing is created anywhere but a temporary folder for a remote one.

    Raises ProjectError, or MLflow's ExecutionException, when it cannot be fetched,
    the entry point does not exist or a required parameter is missing.
    """
    from mlflow.projects.utils import fetch_and_validate_project, load_project

    parameters = dict(parameters or {})
    with _one_line_errors(uri, entry_point):
        work_dir = fetch_and_validate_project(uri, version, entry_point, parameters)
        spec = load_project(work_dir)
    if spec.get_entry_point(entry_point) is None:
        raise ProjectError(f"{uri}: Databricks Spark projects need the backend 'databricks'")
    if redact(uri) != uri:
        _forget_credentials(work_dir)
    return Project(uri, version, entry_point, parameters, Path(work_dir), spec)


def fetch(uri: str) -> Project:
    """The project without an entry point chosen: enough to read the files of its environment. Raises ProjectError."""
    from mlflow.projects.utils import _fetch_project, load_project

    with _one_line_errors(uri, "main"):
        work_dir = _fetch_project(uri)
        return Project(uri, None, "main", {}, Path(work_dir), load_project(work_dir))


@contextlib.contextmanager
def _one_line_errors(uri: str, entry_point: str):
    from mlflow.exceptions import ExecutionException, MlflowException

    try:
        yield
    except ComputeError:
        raise
    except ExecutionException as error:
        if "missing parameters" in str(error):
            raise ProjectError(f"{uri}, entry point '{entry_point}': {_lower(error)}: pass each with -P NAME=VALUE") from None
        raise ProjectError(f"{uri}: {_lower(error)}") from None
    except (MlflowException, OSError) as error:
        raise ProjectError(f"{uri}: {_one_line(error)}") from None
    except Exception as error:  # yaml, git and zipfile each have exceptions of their own
        detail = getattr(error, "stderr", "") or str(error)
        raise ProjectError(f"{uri}: cannot be read as a project (a folder, a zip or a git repository): {_one_line(detail)}") from None


def _forget_credentials(work_dir: str) -> None:
    """MLflow writes the address of a clone's remote into tags of the run."""
    import git

    with contextlib.suppress(git.exc.InvalidGitRepositoryError):
        for remote in git.Repo(work_dir, search_parent_directories=True).remotes:
            remote.set_url(redact(remote.url))


@dataclass(frozen=True)
class FileParameter:
    """A parameter of type `path` or `uri` whose value names files.

    `local` is the absolute path on this machine, or None for a remote URI.
    """

    name: str
    type: str
    value: str
    local: Path | None

    def placed(self, path: str) -> str:
        """Its value once its files are at the absolute `path`: a `uri` stays a URI."""
        return "file://" + urllib.parse.quote(path) if self.type == "uri" else path


def file_parameters(project: Project) -> list[FileParameter]:
    """The entry point's parameters that name files, defaults included.

    A relative path is looked for in the current directory, as MLflow does, then in
    the project. Raises ProjectError when it is in neither.
    """
    from mlflow.utils.file_utils import get_local_path_or_none

    found = []
    for parameter in project.spec.get_entry_point(project.entry_point).parameters.values():
        value = project.parameters.get(parameter.name, parameter.default)
        if parameter.type not in TYPES_OF_FILES or value is None:
            continue
        value = str(value)
        local = get_local_path_or_none(value)
        if parameter.type == "uri" and not urllib.parse.urlparse(value).scheme:
            raise ProjectError(
                f"parameter '{parameter.name}': expected a URI, found {value!r}: write file:///ABSOLUTE/PATH for a local file"
            )
        if local is None:
            if parameter.type == "path":
                found.append(FileParameter(parameter.name, parameter.type, value, None))
            continue
        candidates = [Path.cwd() / local, project.work_dir / local]
        path = next((candidate for candidate in candidates if candidate.exists()), None)
        if path is None:
            raise ProjectError(f"parameter '{parameter.name}': there is no file or folder {value!r} here or in the project")
        found.append(FileParameter(parameter.name, parameter.type, value, Path(os.path.abspath(path))))
    return found


def base_name(uri: str) -> str:
    """The file name at the end of a URI."""
    return os.path.basename(urllib.parse.urlsplit(uri).path.rstrip("/")) or "data"


def command(project: Project, placed: Mapping[str, str]) -> str:
    """The shell command of the entry point, every value quoted by MLflow.

    `placed` holds the values of parameters that name files, as they are where
    the command runs; it goes before the user's own.
    """
    values = {**project.parameters, **placed}
    try:
        return project.spec.get_entry_point(project.entry_point).compute_command(values, None)
    except (KeyError, IndexError, ValueError) as error:
        raise ProjectError(
            f"{project.uri}, entry point '{project.entry_point}': the command uses {{{error.args[0]}}}, "
            "which is no parameter: declare it, or write {{ and }} for braces"
        ) from None


def _one_line(text) -> str:
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return " ".join(lines)[:500] or type(text).__name__


def _lower(error) -> str:
    text = _one_line(error).rstrip(".")
    return text[0].lower() + text[1:]
