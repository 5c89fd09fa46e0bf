"""An MLflow Project, read by MLflow's own code, and its command for the place where it will run."""

import contextlib
import functools
import os
import posixpath
import shlex
import string
import urllib.parse
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_backend import mlflow_internals, scratch
from mlflow_backend.errors import ComputeError, ProjectError, redact
from mlflow_backend.files import secret_files
from mlflow_backend.files.listing import readable
from mlflow_backend.progress import Progress
from mlflow_backend.request import mlproject

TYPES_OF_FILES = ("path", "uri")
ZIP_BYTES = 20_000_000_000
ZIP_FILES = 500_000
"""What a project in a zip may unpack to."""


@dataclass(frozen=True)
class Project:
    """A fetched and parsed project.

    `work_dir` is absolute, `spec` MLflow's own object and `content` what the MLproject file says.
    `fetched` is the temporary folder that the project is in; None for one of this machine.
    """

    uri: str
    version: str | None
    entry_point: str
    parameters: Mapping[str, Any]
    work_dir: Path
    spec: Any = field(repr=False)
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)
    fetched: Path | None = None

    @property
    def name(self) -> str:
        name = self.spec.name
        return self.work_dir.name if name is None or name == "" else str(name)

    @property
    def environment_files(self) -> Mapping[str, str]:
        """`conda_env` or `python_env` of the MLproject file, as far as it names one."""
        return {key: self.content[key] for key in mlproject.TEXTS if self.content.get(key)}

    @functools.cached_property
    def entry(self) -> Any:
        """MLflow's EntryPoint.

        A script that MLproject does not name runs in bash everywhere, not in this machine's $SHELL.
        """
        entry = self.spec.get_entry_point(self.entry_point)
        if self.entry_point.endswith(".sh") and self.entry_point not in (
            self.content.get("entry_points") or {}
        ):
            entry.command = f"bash {mlflow_internals.quote(self.entry_point)}"
        return entry

    def discard(self) -> None:
        """Remove the temporary copy of a project that was fetched; a project of this machine is
        left alone.
        """
        if self.fetched:
            scratch.discard(self.fetched)


def load(
    uri: str, version: str | None, entry_point: str, parameters: Mapping[str, Any] | None
) -> Project:
    """Fetch and parse the project; nothing is created anywhere but a temporary folder for a remote
    one.

    Raises ProjectError when it cannot be fetched, the entry point does not exist or a required
    parameter is missing.
    """
    parameters = dict(parameters or {})
    with _one_line_errors(uri, entry_point):
        project = _fetch(uri, version, entry_point, parameters)
        try:
            if project.entry is None:
                raise ProjectError(
                    f"{uri}: Databricks Spark projects need the backend 'databricks'"
                )
            mlflow_internals.check_parameters(project.entry, parameters)
        except BaseException:
            project.discard()
            raise
    return project


def fetch(uri: str) -> Project:
    """The project without an entry point chosen: enough to read the files of its environment.

    Raises ProjectError.
    """
    with _one_line_errors(uri, "main"):
        return _fetch(uri, None, "main", {})


def _fetch(
    uri: str, version: str | None, entry_point: str, parameters: Mapping[str, Any]
) -> Project:
    """As MLflow's `_fetch_project` does it, but into a folder that is removed whatever happens, and
    without the URI in the log.
    """
    source, subdirectory = mlflow_internals.parse_subdirectory(uri)
    is_zip = mlflow_internals.is_zip_uri(source)
    if not is_zip and mlflow_internals.is_local_uri(source):
        local = Path(mlflow_internals.fetch_local_project(uri, version))
        return _read(local, uri, version, entry_point, parameters, None)
    Progress().say(f"fetching {redact(uri)}")
    folder = scratch.make()
    try:
        if is_zip:
            _unzip(source, folder)
        else:
            mlflow_internals.fetch_git_project(source, version, str(folder))
            _forget_credentials(folder)
        work_dir = folder / subdirectory
        if not work_dir.is_dir():
            raise ProjectError(f"{uri}: has no folder {subdirectory!r}")
        return _read(work_dir, uri, version, entry_point, parameters, folder)
    except BaseException:
        scratch.discard(folder)
        raise


def _unzip(source: str, folder: Path) -> None:
    file = mlflow_internals.fetch_zip(source)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if len(entries) > ZIP_FILES or sum(entry.file_size for entry in entries) > ZIP_BYTES:
        raise ProjectError(
            f"{source}: would unpack to more than {ZIP_FILES} files or {readable(ZIP_BYTES)}"
        )
    mlflow_internals.unzip(file, str(folder))


def _read(
    work_dir: Path,
    uri: str,
    version: str | None,
    entry_point: str,
    parameters: Mapping[str, Any],
    fetched: Path | None,
) -> Project:
    content = mlproject.read(work_dir)  # first: MLflow fails on most mistakes with a traceback
    return Project(
        uri,
        version,
        entry_point,
        parameters,
        work_dir,
        mlflow_internals.load_project(str(work_dir)),
        content,
        fetched,
    )


@contextlib.contextmanager
def _one_line_errors(uri: str, entry_point: str):
    from mlflow.exceptions import ExecutionException, MlflowException

    try:
        yield
    except ComputeError:
        raise
    except ExecutionException as error:
        if "missing parameters" in str(error):
            raise ProjectError(
                f"{uri}, entry point '{entry_point}': {_lower(error)}: pass each with -P NAME=VALUE"
            ) from None
        raise ProjectError(f"{uri}: {_lower(error)}") from None
    except (MlflowException, OSError) as error:
        raise ProjectError(f"{uri}: {_one_line(error)}") from None
    except Exception as error:  # yaml, git and zipfile each have exceptions of their own
        detail = getattr(error, "stderr", "") or str(error)
        raise ProjectError(
            f"{uri}: cannot be read as a project (a folder, a zip or a git repository): "
            f"{_one_line(detail)}"
        ) from None


def _forget_credentials(folder: Path) -> None:
    """The address of the clone's remote is read by MLflow's clients, also by the script itself."""
    import git

    for remote in git.Repo(folder).remotes:
        remote.set_url(redact(remote.url))


@dataclass(frozen=True)
class FileParameter:
    """A parameter of type `path` or `uri` whose value names files.

    `local` is the absolute path on this machine, or None for a remote URI. `given`: by the user,
    not by the project.
    """

    name: str
    type: str
    value: str
    local: Path | None
    given: bool

    def placed(self, path: str) -> str:
        """Its value once its files are at the absolute `path`: a `uri` stays a URI."""
        return "file://" + urllib.parse.quote(path) if self.type == "uri" else path


def file_parameters(project: Project, confined: bool) -> list[FileParameter]:
    """The entry point's parameters that name files, defaults included; an empty value names none.

    A relative path that the user gives is looked for in the current directory, as MLflow does, then
    in the project; a relative default in the project alone. `confined`: the command runs where it
    cannot open this machine's files by itself, so a default may only name files of the project, and
    none that looks like a secret. Raises ProjectError for what is not there, or not allowed.
    """
    found = []
    for parameter in project.entry.parameters.values():
        given = parameter.name in project.parameters
        value = project.parameters[parameter.name] if given else parameter.default
        if (
            parameter.type not in TYPES_OF_FILES
            or value is None
            or (value == "" and parameter.type == "path")
        ):
            continue
        name = str(parameter.name)
        if "/" in name or name in ("", ".", ".."):
            raise ProjectError(
                f"parameter {name!r}: a name of a parameter of type {parameter.type} is also a "
                "folder's: choose another"
            )
        file = _file_parameter(project, name, parameter.type, str(value), given)
        if confined and file and file.local and not given:
            _check_default(project, file)
        if file:
            found.append(file)
    return found


def _file_parameter(
    project: Project, name: str, kind: str, value: str, given: bool
) -> FileParameter | None:
    """None for a URI that is handed on as it is."""
    try:
        parts = urllib.parse.urlsplit(value)
    except ValueError:
        raise ProjectError(f"parameter '{name}': {value!r} is neither a path nor a URI") from None
    if kind == "uri" and not parts.scheme:
        raise ProjectError(
            f"parameter '{name}': expected a URI, found {value!r}: write file:///ABSOLUTE/PATH for "
            "a local file"
        )
    if parts.scheme not in ("", "file"):
        return FileParameter(name, kind, value, None, given) if kind == "path" else None
    if parts.scheme and parts.netloc:
        raise ProjectError(
            f"parameter '{name}': {value!r} names a host: write file:///ABSOLUTE/PATH for a local "
            "file"
        )
    local = mlflow_internals.local_path(value)
    candidates = (
        [Path.cwd() / local, project.work_dir / local] if given else [project.work_dir / local]
    )
    path = next((candidate for candidate in candidates if os.path.exists(candidate)), None)
    if path is None:
        place = (
            "here or in the project"
            if given
            else (f"in the project (a default is looked for there alone): {_pass(name, value)}")
        )
        raise ProjectError(f"parameter '{name}': there is no file or folder {value!r} {place}")
    return FileParameter(name, kind, value, Path(os.path.abspath(path)), given)


def _check_default(project: Project, file: FileParameter) -> None:
    real, root = Path(os.path.realpath(file.local)), Path(os.path.realpath(project.work_dir))
    if not real.is_relative_to(root):
        raise ProjectError(
            f"parameter '{file.name}': its default {file.value!r} is outside of the project: to "
            f"send it on purpose, {_pass(file.name, file.value)}"
        )
    if real.is_file() and secret_files.looks_secret(real.relative_to(root).as_posix(), real):
        raise ProjectError(
            f"parameter '{file.name}': its default {file.value!r} looks like a secret: to send it "
            f"on purpose, {_pass(file.name, file.value)}"
        )


def _pass(name: str, value: str) -> str:
    return f"pass -P {shlex.quote(f'{name}={value}')}"


def base_name(uri: str) -> str:
    """The file name at the end of a URI."""
    name = posixpath.basename(urllib.parse.urlsplit(uri).path.rstrip("/"))
    return name if name not in ("", ".", "..") else "data"


def command(project: Project, placed: Mapping[str, str]) -> str:
    """The shell command of the entry point, every value quoted by MLflow.

    `placed` holds the values of parameters that name files, as they are where the command runs; it
    takes precedence over the user's own. Raises ProjectError for braces that hold anything but a
    parameter's name.
    """
    from mlflow.exceptions import MlflowException

    values = {**project.parameters, **placed}
    where = f"{project.uri}, entry point '{project.entry_point}'"
    if not project.entry.command:
        raise ProjectError(f"{where}: has no command: write 'command:' in MLproject")
    _check_braces(project.entry.command, {*map(str, project.entry.parameters)}, where)
    try:
        return project.entry.compute_command(values, None)
    except MlflowException as error:
        raise ProjectError(f"{where}: {_lower(error)}") from None


def _check_braces(text: str, known: set[str], where: str) -> None:
    """MLflow fills a command with str.format, where `{a.b}`, `{a[0]}` and `{a:9999999999}` mean
    something, but never what was meant.
    """
    try:
        fields = [
            (name, spec, conversion)
            for _, name, spec, conversion in string.Formatter().parse(text)
            if name is not None
        ]
    except ValueError:
        raise ProjectError(
            f"{where}: the command has a single brace: write {{{{ and }}}} for braces"
        ) from None
    for name, spec, conversion in fields:
        if name not in known or spec or conversion or set(".[") & set(name):
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            problem = (
                "a parameter's name alone"
                if name in known
                else ("the name of a declared parameter")
            )
            raise ProjectError(
                f"{where}: the command has {{{shown:.50}}}: write {problem}, and {{{{ and }}}} for "
                "braces"
            )


def _one_line(text) -> str:
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return " ".join(lines)[:500] or type(text).__name__


def _lower(error) -> str:
    text = _one_line(error).rstrip(".")
    return text[0].lower() + text[1:]
