"""The files that travel with a run, and where parameters find them in a pod."""

import contextlib
import os
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mlflow_backend.environment.indexes import index_settings
from mlflow_backend.environment.locks import CachedLock
from mlflow_backend.errors import ProjectError
from mlflow_backend.files import snapshot
from mlflow_backend.files.code_files import describe_ignored, project_files
from mlflow_backend.files.input_files import input_files
from mlflow_backend.files.listing import Limits, Listing, Member, count, readable
from mlflow_backend.places.kubernetes.objects import manifest
from mlflow_backend.plain_text import plain
from mlflow_backend.progress import Progress
from mlflow_backend.request import project as projects
from mlflow_backend.request.project import FileParameter, Project
from mlflow_runner.contract.submission import CA_BUNDLE, Download

MOST_NAMED = 10


class Packed(NamedTuple):
    """The archive of project and local inputs, the parameters' values in a pod, and what the runner
    must download.
    """

    taken: snapshot.Snapshot
    placed: Mapping[str, str]
    downloads: tuple[Download, ...]


@contextlib.contextmanager
def pack(
    project: Project, kept: CachedLock | None, limits: Limits, progress: Progress
) -> Iterator[Packed]:
    """Pack the project and its environment's lock; the archive is gone when the context ends.

    `progress` is told what is left out and what is taken from outside of the project. Raises
    SnapshotError or ProjectError.
    """
    parameters = projects.file_parameters(project, confined=True)
    listing = project_files(project.work_dir, limits)
    placed, inputs, downloads = {}, {}, []
    for parameter in parameters:
        if parameter.local is None:
            path = f"{manifest.INPUTS_DIR}/{parameter.name}/{projects.base_name(parameter.value)}"
            downloads.append(Download(parameter.value, path))
        elif (inside := _inside(parameter.local, project.work_dir, listing)) is not None:
            path = posixpath.normpath(f"{manifest.PROJECT_DIR}/{inside}")
        else:
            name = f"inputs/{parameter.name}/{parameter.local.name or 'data'}"
            inputs |= _take_along(project, parameter, name, limits, progress)
            path = f"{posixpath.dirname(manifest.INPUTS_DIR)}/{name}"
        placed[parameter.name] = parameter.placed(path)
    taken = snapshot.take(listing, inputs | _lock_files(kept), limits)
    try:
        _tell(project, listing, taken, progress)
        yield Packed(taken, placed, tuple(downloads))
    finally:
        taken.discard()


def _take_along(
    project: Project, parameter: FileParameter, name: str, limits: Limits, progress: Progress
) -> Mapping[str, Member]:
    """The files of a parameter's value, which do not travel with the project."""
    found = input_files(
        parameter.local, name, limits, within=None if parameter.given else project.work_dir
    )
    secrets = _named(
        [secret.removeprefix(f"{name}/") for secret in found.secrets if secret != name]
    )
    if parameter.given:
        amount = f"{count(found.files)}, {readable(found.size_bytes)}"
        warning = "; may be secret" * bool(found.secrets) + f": {secrets}" * bool(secrets)
        progress.say(
            f"parameter '{parameter.name}': {plain(str(parameter.local))} travels with the run "
            f"({amount}){warning}"
        )
    elif secrets:
        progress.say(
            f"parameter '{parameter.name}': left out of {plain(str(parameter.local))}, may be "
            f"secret: {secrets}"
        )
    return found.members


def _lock_files(kept: CachedLock | None) -> Mapping[str, Member]:
    if not kept:
        return {}
    folder = posixpath.basename(manifest.LOCK_DIR)
    files = dict(kept.files)
    if bundle := index_settings.own_ca_bundle():
        files[CA_BUNDLE] = Path(bundle)
    return {
        f"{folder}/{name}": _required(Path(os.path.realpath(path))) for name, path in files.items()
    }


def _required(path: Path) -> Member:
    try:
        return Member(path, "file", path.stat().st_size, required=True)
    except OSError as error:
        raise ProjectError(f"{path}: cannot be read: {error.strerror}") from None


def _tell(project: Project, listing: Listing, taken: snapshot.Snapshot, progress: Progress) -> None:
    """What the user may miss in the pod."""
    if listing.secrets:
        progress.say(
            f"left out, may be secret: {_named(listing.secrets)} (write !NAME in .mlflowignore to "
            "send one)"
        )
    if ignored := describe_ignored(project.work_dir, listing):
        progress.say(ignored)
    if taken.changed:
        names = [name.removeprefix("project/") for name in taken.changed]
        progress.say(f"changed while it was packed, what it held at first travels: {_named(names)}")


def _named(names) -> str:
    shown = ", ".join(plain(name) for name in names[:MOST_NAMED])
    return f"{shown} and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else shown


def _inside(path: Path, root: Path, listing: Listing) -> str | None:
    """The path below the project's folder if all that it names travels with the project."""
    real, top = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    if not real.is_relative_to(top):
        return None
    name = real.relative_to(top).as_posix()
    travels = (
        listing.is_whole(name) if real.is_dir() and name != "." else name in (".", *listing.members)
    )
    return name if travels else None
