"""The files that travel with a run, and where parameters find them in a pod."""

import contextlib
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow_backend.environment.indexes import index_settings
from mlflow_backend.environment.locks import CachedLock
from mlflow_backend.errors import ProjectError
from mlflow_backend.files import snapshot
from mlflow_backend.files.code_files import describe_ignored, project_files
from mlflow_backend.files.input_files import input_files
from mlflow_backend.files.listing import Limits, Listing, Member, format_count, format_size
from mlflow_backend.places.kubernetes.objects import manifest
from mlflow_backend.plain_text import plain
from mlflow_backend.progress import Progress
from mlflow_backend.request import project as projects
from mlflow_backend.request.project import FileParameter, Project
from mlflow_runner.contract.submission import CA_BUNDLE, Download

MOST_NAMED = 10


class Packed(NamedTuple):
    """The archive of project and local inputs, the parameters' values in a pod, and what the runner
    downloads.
    """

    archive: snapshot.Snapshot
    placed: Mapping[str, str]
    downloads: tuple[Download, ...]


@contextlib.contextmanager
def pack(
    project: Project, lock: CachedLock | None, limits: Limits, progress: Progress
) -> Iterator[Packed]:
    """Pack the project and its environment's lock; the archive is removed when the context ends.

    `progress` shows what is excluded and what is included from outside of the project. Raises
    SnapshotError or ProjectError.
    """
    parameters = projects.file_parameters(project, confined=True)
    listing = project_files(project.work_dir, limits)
    placed: dict[str, str] = {}
    inputs: dict[str, Member] = {}
    downloads: list[Download] = []
    for parameter in parameters:
        if parameter.local is None:
            path = f"{manifest.INPUTS_DIR}/{parameter.name}/{projects.base_name(parameter.value)}"
            downloads.append(Download(parameter.value, path))
        elif (inside := _inside(parameter.local, project.work_dir, listing)) is not None:
            path = posixpath.normpath(f"{manifest.PROJECT_DIR}/{inside}")
        else:
            name = f"inputs/{parameter.name}/{parameter.local.name or 'data'}"
            within = project.work_dir if parameter.is_default else None
            files = input_files(parameter.local, name, limits, within)
            _show_input(parameter, name, files, progress)
            inputs |= files.members
            path = f"{posixpath.dirname(manifest.INPUTS_DIR)}/{name}"
        placed[parameter.name] = parameter.placed(path)
    archive = snapshot.take(listing, inputs | _lock_files(lock), limits)
    try:
        _show(project, listing, archive, progress)
        yield Packed(archive, placed, tuple(downloads))
    finally:
        archive.discard()


def _show_input(parameter: FileParameter, name: str, listing: Listing, progress: Progress) -> None:
    """Show the files of a parameter's value that are not part of the project (`name` in the
    archive), and which of them may be secret.
    """
    secrets = _join(
        [secret.removeprefix(f"{name}/") for secret in listing.secrets if secret != name]
    )
    if not parameter.is_default:
        amount = f"{format_count(listing.files)}, {format_size(listing.size_bytes)}"
        warning = "; may be secret" * bool(listing.secrets) + f": {secrets}" * bool(secrets)
        progress.say(
            f"parameter '{parameter.name}': {plain(str(parameter.local))} travels with the run "
            f"({amount}){warning}"
        )
    elif secrets:
        progress.say(
            f"parameter '{parameter.name}': excluded from {plain(str(parameter.local))}, may be "
            f"secret: {secrets}"
        )


def _lock_files(lock: CachedLock | None) -> dict[str, Member]:
    if not lock:
        return {}
    folder = posixpath.basename(manifest.LOCK_DIR)
    files = dict(lock.files)
    if bundle := index_settings.own_ca_bundle():
        files[CA_BUNDLE] = Path(bundle)
    return {
        f"{folder}/{name}": _required(Path(os.path.realpath(path))) for name, path in files.items()
    }


def _required(path: Path) -> Member:
    try:
        return Member(path, "file", path.stat().st_size, required=True)
    except OSError as error:
        raise ProjectError(
            f"{path}: cannot be read: {error.strerror}", code="UnreadableFile"
        ) from None


def _show(
    project: Project, listing: Listing, archive: snapshot.Snapshot, progress: Progress
) -> None:
    """Show what the pod does not get."""
    if listing.secrets:
        progress.say(
            f"excluded, may be secret: {_join(listing.secrets)} (write !NAME in .mlflowignore to "
            "send one)"
        )
    if ignored := describe_ignored(project.work_dir, listing):
        progress.say(ignored)
    if archive.changed:
        names = [name.removeprefix("project/") for name in archive.changed]
        progress.say(f"changed while being packed, the run may get an older state: {_join(names)}")


def _join(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(plain(name) for name in names[:MOST_NAMED])
    return f"{shown} and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else shown


def _inside(path: Path, root: Path, listing: Listing) -> str | None:
    """The path below the project's folder if all of its files travel with the project."""
    real, top = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    if not real.is_relative_to(top):
        return None
    name = real.relative_to(top).as_posix()
    travels = (
        listing.is_whole(name) if real.is_dir() and name != "." else name in (".", *listing.members)
    )
    return name if travels else None
