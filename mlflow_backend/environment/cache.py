"""This user's cache on this machine: locks, packages, and the environments of runs here."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from mlflow_backend import scratch
from mlflow_backend.errors import EnvironmentSpecError

ABANDONED_S = 86_400


def cache_dir() -> Path:
    """The cache's folder, which may not exist yet."""
    return Path(platformdirs.user_cache_dir("mlflow-compute"))


def make(name: str) -> Path:
    """Create the folder `name` of the cache, which only this user can read and write.

    Raises EnvironmentSpecError.
    """
    path = cache_dir() / name
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None
    return path


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A private folder for the duration of the context. It is in the cache because other users
    cannot put files into the folders above it.

    Raises EnvironmentSpecError for a cache that cannot be written.
    """
    parent = make("scratch")
    _remove_abandoned(parent)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch.folder(parent))
        except OSError as error:
            raise unwritable(parent, error) from None
        yield folder


def write(path: Path, content: bytes) -> Path:
    """Write a file that only this user can read, and return its path."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    return path


@contextlib.contextmanager
def exclusive(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` for the duration of the context, after a call of
    `on_wait` if another process holds it.

    Where files cannot be locked (Windows, some network file systems) the context starts at once.
    Raises EnvironmentSpecError for a file that cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "a"))
        except OSError as error:
            raise unwritable(path, error) from None
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes that were killed."""
    for path in parent.glob(f"{scratch.PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                scratch.discard(path)


def unwritable(path: Path, error: OSError) -> EnvironmentSpecError:
    """The error for a part of the cache that cannot be written."""
    return EnvironmentSpecError(
        f"{path}: cannot be written: {error.strerror}",
        code="UnwritableFile",
        hint="set XDG_CACHE_HOME to a folder that you can write to",
    )
