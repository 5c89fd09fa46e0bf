"""Temporary folders that only their user can open.

They are removed after use, after an error, when the process exits and, in a command, on SIGTERM and
SIGHUP.
"""

import atexit
import contextlib
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

PREFIX = "mlflow-compute-"
ENDING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Stopped(SystemExit):
    """The signal `number` asked the process to end; the exit code is the shells' code for it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


_folders: dict[Path, int] = {}
"""The folders to remove and the process that created each: a forked child does not remove its
parent's folders.
"""


@contextlib.contextmanager
def folder(parent: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """A new folder (mode 0700) below `parent`, by default the machine's temporary folder; removed
    at the end of the context.
    """
    path = make(parent)
    try:
        yield path
    finally:
        discard(path)


def make(parent: str | os.PathLike[str] | None = None) -> Path:
    """A new folder (see `folder`) that exists until `discard`, or until the process ends.

    After `release` it outlives the process.
    """
    path = Path(os.path.abspath(parent or tempfile.gettempdir()), PREFIX + secrets.token_hex(8))
    _folders[path] = os.getpid()  # before mkdir: a signal may arrive in between
    try:
        path.mkdir(mode=0o700)
    except OSError:
        del _folders[path]
        raise
    return path


def release(path: Path) -> None:
    """Leave the removal of the folder to another process."""
    _folders.pop(path, None)


def discard(path: Path) -> None:
    """Remove the folder and its contents as far as possible; a missing folder is no error."""
    _remove(path)
    _folders.pop(path, None)


def end_in_order() -> None:
    """On SIGTERM and SIGHUP, raise `Stopped`, so that contexts end and exit handlers run.

    Only for commands: a library does not change its host's signals. Ignored signals (nohup) and
    existing handlers are left unchanged. A second signal ends the process immediately.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    for other in ENDING_SIGNALS:
        if signal.getsignal(other) is _leave:
            signal.signal(other, signal.SIG_DFL)
    _discard_all()  # now: exit handlers may wait for a server
    raise Stopped(number)


@atexit.register
def _discard_all() -> None:
    for path, process in list(_folders.items()):
        if process == os.getpid():
            discard(path)


def _remove(root: Path) -> None:
    """Remove `root`. Folders are moved up before they are emptied, as the tree may be too deep for
    the stack and its paths too long for the system.
    """
    folders = [root]
    for place in folders:
        with contextlib.suppress(OSError):
            place.chmod(0o700)
            with os.scandir(place) as scan:
                entries = list(scan)
            for entry in entries:
                _empty(entry, root, folders)
    for place in reversed(folders):
        with contextlib.suppress(OSError):
            place.rmdir()


def _empty(entry: os.DirEntry[str], root: Path, folders: list[Path]) -> None:
    with contextlib.suppress(OSError):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry, 0o700)  # a rename writes to the folder itself (its `..`)
            moved = root / secrets.token_hex(8)
            os.rename(entry, moved)
            folders.append(moved)
        else:
            os.unlink(entry)
