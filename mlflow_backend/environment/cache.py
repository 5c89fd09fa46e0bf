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
    """The cache's folder, which need not be there yet."""
    return Path(platformdirs.user_cache_dir("mlflow-compute"))


def make(name: str) -> Path:
    """The folder `name` of the cache, which only this user can write to.

    Raises EnvironmentSpecError.
    """
    path = cache_dir() / name
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentSpecError(
            f"{path}: cannot be made: {error.strerror}: set XDG_CACHE_HOME to a folder that you "
            "can write to"
        ) from None
    return path


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A private folder while the context lasts. It is in the cache: no other user can put a file
    into a folder above it.

    Raises EnvironmentSpecError where the cache cannot be written.
    """
    parent = make("scratch")
    _remove_abandoned(parent)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch.folder(parent))
        except OSError as error:
            raise EnvironmentSpecError(
                f"{parent}: cannot be written: {error.strerror}: set XDG_CACHE_HOME to another "
                "folder"
            ) from None
        yield folder


def write(path: Path, content: bytes) -> Path:
    """Write a file that only this user can read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    return path


@contextlib.contextmanager
def alone(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the file `path` alone while the context lasts; `on_wait` is called where another process
    has it now.

    Without a way to lock files (Windows, some network file systems) the context starts at once.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        file = open(path, "a")
    except OSError as error:
        raise EnvironmentSpecError(
            f"{path}: cannot be written: {error.strerror}: set XDG_CACHE_HOME to another folder"
        ) from None
    with file:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_abandoned(parent: Path) -> None:
    """What a killed process left behind."""
    for path in parent.glob(f"{scratch.PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                scratch.discard(path)
