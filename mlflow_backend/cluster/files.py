"""The files that travel with a run, and where parameters find them in a pod."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mlflow_backend import project as projects
from mlflow_backend import snapshot
from mlflow_backend.cluster import manifest
from mlflow_backend.environment import index_settings
from mlflow_backend.environment.locks import Kept
from mlflow_backend.progress import Progress
from mlflow_backend.project import Project
from mlflow_runner.submission import CA_BUNDLE, Download


class Packed(NamedTuple):
    """The archive of project and local inputs, the parameters' values in a pod, and what the runner must download."""

    taken: snapshot.Snapshot
    placed: Mapping[str, str]
    downloads: tuple[Download, ...]


@contextlib.contextmanager
def pack(project: Project, kept: Kept | None, progress: Progress) -> Iterator[Packed]:
    """Pack the project and its environment's lock; the archive is gone when the context ends. Raises SnapshotError or ProjectError."""
    listing = snapshot.project_files(project.work_dir)
    placed, inputs, downloads = {}, {}, []
    for parameter in projects.file_parameters(project):
        if parameter.local is None:
            path = f"{manifest.INPUTS_DIR}/{parameter.name}/{projects.base_name(parameter.value)}"
            downloads.append(Download(parameter.value, path))
        elif (inside := _inside(parameter.local, project.work_dir, listing)) is not None:
            path = os.path.normpath(f"{manifest.PROJECT_DIR}/{inside}")
        else:
            name = f"inputs/{parameter.name}/{parameter.local.name}"
            inputs[name] = parameter.local
            path = f"{os.path.dirname(manifest.INPUTS_DIR)}/{name}"
        placed[parameter.name] = parameter.placed(path)
    if kept:
        folder = os.path.basename(manifest.LOCK_DIR)
        inputs |= {f"{folder}/{name}": path for name, path in kept.files.items()}
        if bundle := index_settings.own_ca_bundle():
            inputs[f"{folder}/{CA_BUNDLE}"] = Path(bundle)
    taken = snapshot.take(listing, inputs)
    if taken.secrets:
        progress.say(f"left out, may be secret: {', '.join(taken.secrets)} (write !NAME in .mlflowignore to send one)")
    try:
        yield Packed(taken, placed, tuple(downloads))
    finally:
        taken.discard()


def _inside(path: Path, root: Path, listing: snapshot.Listing) -> str | None:
    """The path below the project's folder if all that it names travels with the project."""
    try:
        name = path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return None
    if path.is_file():
        return name if name in listing.members else None
    files = [file.relative_to(root).as_posix() for file in path.rglob("*") if file.is_file()]
    return name if files and all(file in listing.members for file in files) else None
