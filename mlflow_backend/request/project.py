"""An MLflow Project, loaded by MLflow's own code, and the command of its entry point."""

import contextlib
import functools
import os
import posixpath
import shlex
import string
import urllib.parse
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_backend import mlflow_internals, scratch
from mlflow_backend.errors import ComputeError, ProjectError, redact
from mlflow_backend.explanations import Code
from mlflow_backend.files import secret_files
from mlflow_backend.files.listing import format_size
from mlflow_backend.progress import Progress
from mlflow_backend.request import mlproject

TYPES_OF_FILES = ("path", "uri")
ZIP_BYTES = 20_000_000_000
ZIP_FILES = 500_000
"""Limits for a project in a zip, unpacked."""


@dataclass(frozen=True)
class Project:
    """A fetched and parsed project.

    `work_dir` is absolute, `spec` MLflow's own object and `content` that of the MLproject file.
    `fetched` is the temporary folder that contains the project; None for one of this machine.
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
        """The name in the MLproject file, else that of the folder."""
        name = self.spec.name
        return self.work_dir.name if name is None or name == "" else str(name)

    @property
    def environment_files(self) -> Mapping[str, str]:
        """`conda_env` and `python_env` of the MLproject file, if set."""
        return {key: self.content[key] for key in mlproject.TEXTS if self.content.get(key)}

    @functools.cached_property
    def entry(self) -> Any:
        """MLflow's EntryPoint. A script that MLproject does not name runs in bash, not $SHELL."""
        entry = self.spec.get_entry_point(self.entry_point)
        if self.entry_point.endswith(".sh") and self.entry_point not in (
            self.content.get("entry_points") or {}
        ):
            entry.command = f"bash {mlflow_internals.quote(self.entry_point)}"
        return entry

    def discard(self) -> None:
        """Remove the temporary folder of a fetched project."""
        if self.fetched:
            scratch.discard(self.fetched)


def load(
    uri: str, version: str | None, entry_point: str, parameters: Mapping[str, Any] | None
) -> Project:
    """Fetch and parse the project; a remote one is fetched to a temporary folder.

    Raises ProjectError if it cannot be fetched, the entry point does not exist or a required
    parameter is missing.
    """
    parameters = dict(parameters or {})
    with _convert_errors(uri), contextlib.ExitStack() as stack:
        project = _fetch(uri, version, entry_point, parameters)
        stack.callback(project.discard)
        with _convert_errors(uri, "NotFound"):
            entry = project.entry
        if entry is None:
            raise ProjectError(
                f"{uri}: is a Databricks Spark project", hint="use the backend 'databricks'"
            )
        place = f"{uri}, entry point '{entry_point}'"
        with _convert_errors(place, "InvalidParameter", "pass each with -P NAME=VALUE"):
            mlflow_internals.check_parameters(entry, parameters)
        stack.pop_all()
    return project


def fetch(uri: str) -> Project:
    """The project without its entry point, to read its environment files. Raises ProjectError."""
    with _convert_errors(uri):
        return _fetch(uri, None, "main", {})


def _fetch(
    uri: str, version: str | None, entry_point: str, parameters: Mapping[str, Any]
) -> Project:
    """Like MLflow's `_fetch_project`, but with a folder that is removed on any error, and without
    credentials in the log.
    """
    source, subdirectory = mlflow_internals.parse_subdirectory(uri)
    is_zip = mlflow_internals.is_zip_uri(source)
    if not is_zip and mlflow_internals.is_local_uri(source):
        local = Path(mlflow_internals.fetch_local_project(uri, version))
        return _read(local, uri, version, entry_point, parameters, None)
    Progress().say(f"fetching {redact(uri)}")
    with contextlib.ExitStack() as stack:
        folder = scratch.make()
        stack.callback(scratch.discard, folder)
        if is_zip:
            _unzip(source, folder)
        else:
            with _convert_errors(uri, "GitFailed"):
                mlflow_internals.fetch_git_project(source, version, str(folder))
                _remove_credentials(folder)
        work_dir = folder / subdirectory
        if not work_dir.is_dir():
            raise ProjectError(f"{uri}: has no folder {subdirectory!r}", code="NotFound")
        project = _read(work_dir, uri, version, entry_point, parameters, folder)
        stack.pop_all()
        return project


def _unzip(source: str, folder: Path) -> None:
    file = mlflow_internals.fetch_zip(source)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if len(entries) > ZIP_FILES or sum(entry.file_size for entry in entries) > ZIP_BYTES:
        raise ProjectError(
            f"{source}: would unpack to more than {ZIP_FILES} files or {format_size(ZIP_BYTES)}",
            code="TooLarge",
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
def _convert_errors(place: str, code: Code | None = None, hint: str = "") -> Iterator[None]:
    """Raise what MLflow, git and zipfile raise as a ProjectError of one line."""
    from mlflow.exceptions import ExecutionException, MlflowException

    try:
        yield
    except ComputeError:
        raise
    except ExecutionException as error:
        raise ProjectError(f"{place}: {_lower(error)}", code=code, hint=hint) from None
    except FileNotFoundError as error:
        raise ProjectError(f"{place}: {_one_line(error)}", code=code or "NotFound") from None
    except OSError as error:
        raise ProjectError(f"{place}: {_one_line(error)}", code=code or "UnreadableFile") from None
    except MlflowException as error:
        raise ProjectError(f"{place}: {_one_line(error)}", code=code) from None
    except Exception as error:  # git and zipfile have their own exceptions
        detail = getattr(error, "stderr", "") or str(error)
        raise ProjectError(
            f"{place}: cannot be read as a project (a folder, a zip or a git repository): "
            f"{_one_line(detail)}",
            code=code,
        ) from None


def _remove_credentials(folder: Path) -> None:
    """Remove the credentials from the URLs of the clone's remotes, which MLflow's clients log."""
    import git

    for remote in git.Repo(folder).remotes:
        remote.set_url(redact(remote.url))


@dataclass(frozen=True)
class FileParameter:
    """A parameter of type `path` or `uri` whose value names files.

    `local` is the absolute path on this machine, or None for a remote URI. `is_default`: the value
    is the project's default, not the user's.
    """

    name: str
    type: str
    value: str
    local: Path | None
    is_default: bool

    def placed(self, path: str) -> str:
        """The parameter's value for files at the absolute `path`; a `uri` stays a URI."""
        return "file://" + urllib.parse.quote(path) if self.type == "uri" else path


def file_parameters(project: Project, confined: bool) -> list[FileParameter]:
    """The entry point's parameters that name files, defaults among them; an empty value names none.

    A relative path that the user passes is resolved in the current directory, as MLflow does, else
    in the project; a relative default only in the project. With `confined` the command cannot open
    this machine's files itself, so a default may only name files of the project that do not look
    like secrets. Raises ProjectError for a file that does not exist or is not allowed.
    """
    files = []
    for parameter in project.entry.parameters.values():
        is_default = parameter.name not in project.parameters
        value = parameter.default if is_default else project.parameters[parameter.name]
        if (
            parameter.type not in TYPES_OF_FILES
            or value is None
            or (value == "" and parameter.type == "path")
        ):
            continue
        name = str(parameter.name)
        if "/" in name or name in ("", ".", ".."):
            raise ProjectError(
                f"parameter {name!r}: the name of a parameter of type {parameter.type} must be "
                "valid as the name of a folder",
                code="InvalidParameter",
                hint="choose another name",
            )
        file = _file_parameter(project, name, parameter.type, str(value), is_default)
        if confined and file and file.local and is_default:
            _check_default(file, file.local, project.work_dir)
        if file:
            files.append(file)
    return files


def _file_parameter(
    project: Project, name: str, kind: str, value: str, is_default: bool
) -> FileParameter | None:
    """None for a URI that is passed on unchanged."""
    try:
        parts = urllib.parse.urlsplit(value)
    except ValueError:
        raise ProjectError(
            f"parameter '{name}': {value!r} is neither a path nor a URI", code="InvalidParameter"
        ) from None
    if kind == "uri" and not parts.scheme:
        raise ProjectError(
            f"parameter '{name}': {value!r} is not a URI",
            code="InvalidParameter",
            hint="write file:///ABSOLUTE/PATH for a local file",
        )
    if parts.scheme not in ("", "file"):
        return FileParameter(name, kind, value, None, is_default) if kind == "path" else None
    if parts.scheme and parts.netloc:
        raise ProjectError(
            f"parameter '{name}': {value!r} names a host",
            code="InvalidParameter",
            hint="write file:///ABSOLUTE/PATH for a local file",
        )
    folders = [project.work_dir] if is_default else [Path.cwd(), project.work_dir]
    paths = [folder / mlflow_internals.local_path(value) for folder in folders]
    path = next((path for path in paths if os.path.exists(path)), None)
    if path is None:
        place = (
            "in the project, where defaults are"
            if is_default
            else "in the current directory or the project"
        )
        raise ProjectError(
            f"parameter '{name}': there is no file or folder {value!r} {place}",
            code="NotFound",
            hint=_pass_hint(name, value) if is_default else "",
        )
    return FileParameter(name, kind, value, Path(os.path.abspath(path)), is_default)


def _check_default(file: FileParameter, local: Path, work_dir: Path) -> None:
    """Raises ProjectError for a file outside of the project, and for one like a secret."""
    real, root = Path(os.path.realpath(local)), Path(os.path.realpath(work_dir))
    place = f"parameter '{file.name}': its default {file.value!r}"
    hint = f"to send it intentionally, {_pass_hint(file.name, file.value)}"
    if not real.is_relative_to(root):
        raise ProjectError(f"{place} is outside of the project", code="UnusableFile", hint=hint)
    if real.is_file() and secret_files.looks_secret(real.relative_to(root).as_posix(), real):
        raise ProjectError(f"{place} looks like a secret", code="SecretFile", hint=hint)


def _pass_hint(name: str, value: str) -> str:
    return f"pass -P {shlex.quote(f'{name}={value}')}"


def base_name(uri: str) -> str:
    """The file name at the end of a URI."""
    name = posixpath.basename(urllib.parse.urlsplit(uri).path.rstrip("/"))
    return name if name not in ("", ".", "..") else "data"


def command(project: Project, placed: Mapping[str, str]) -> str:
    """The shell command of the entry point; MLflow quotes every value.

    `placed` has the values of file parameters in the place where the command runs; they take
    precedence over the user's values. Raises ProjectError for braces with anything but a
    parameter's name.
    """
    from mlflow.exceptions import MlflowException

    values = {**project.parameters, **placed}
    where = f"{project.uri}, entry point '{project.entry_point}'"
    if not project.entry.command:
        raise ProjectError(
            f"{where}: has no command", code="InvalidCommand", hint="write 'command:' in MLproject"
        )
    _check_braces(project.entry.command, {*map(str, project.entry.parameters)}, where)
    try:
        return str(project.entry.compute_command(values, None))
    except MlflowException as error:
        raise ProjectError(f"{where}: {_lower(error)}", code="InvalidParameter") from None


def _check_braces(text: str, parameters: set[str], where: str) -> None:
    """Reject the further syntax of str.format, which MLflow uses: `{a.b}`, `{a[0]}` and
    `{a:9999999999}`.
    """
    try:
        fields = [
            (name, spec, conversion)
            for _, name, spec, conversion in string.Formatter().parse(text)
            if name is not None
        ]
    except ValueError:
        raise ProjectError(
            f"{where}: the command has a single brace",
            code="InvalidCommand",
            hint="write {{ and }} for braces",
        ) from None
    for name, spec, conversion in fields:
        if name not in parameters or spec or conversion or set(".[") & set(name):
            field = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            valid = "only its name" if name in parameters else "the name of a declared parameter"
            raise ProjectError(
                f"{where}: the command has {{{field:.50}}}",
                code="InvalidCommand",
                hint=f"write {valid}, and {{{{ and }}}} for braces",
            )


def _one_line(text: object) -> str:
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return " ".join(lines)[:500] or type(text).__name__


def _lower(error: Exception) -> str:
    text = _one_line(error).rstrip(".")
    return text[0].lower() + text[1:]
