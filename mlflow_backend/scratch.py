"""Temporary folders that only their user can open, and that are gone when they are not needed:
after an error, at the process's exit and, in a command, on SIGTERM and SIGHUP.
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

PREFIX = "mlflow-compute-"
ENDING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Stopped(SystemExit):
    """The process was asked to end by the signal `number`; the exit code is the one that shells
    give for it.
    """

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


_folders: dict[Path, int] = {}
"""The folders to remove, with the process that made each: a forked child removes none of its
parent's.
"""


@contextlib.contextmanager
def folder(parent: str | os.PathLike | None = None) -> Iterator[Path]:
    """A new folder (mode 0700) below `parent`, by default the machine's temporary folder; gone when
    the context ends.
    """
    path = make(parent)
    try:
        yield path
    finally:
        discard(path)


def make(parent: str | os.PathLike | None = None) -> Path:
    """A new folder as `folder` gives it, which lives until `discard`, or until the process ends.

    `release` keeps it longer.
    """
    path = Path(os.path.abspath(parent or tempfile.gettempdir()), PREFIX + secrets.token_hex(8))
    _folders[path] = os.getpid()  # before it exists: a signal may come in between
    try:
        path.mkdir(mode=0o700)
    except OSError:
        del _folders[path]
        raise
    return path


def release(path: Path) -> None:
    """Leave the folder to another process, which removes it when it has ended."""
    _folders.pop(path, None)


def discard(path: Path) -> None:
    """Remove the folder and what is in it, as far as that is possible.

    One that is gone already is no error.
    """
    _remove(path)
    _folders.pop(path, None)


def end_in_order() -> None:
    """On SIGTERM and SIGHUP, leave by `Stopped`, so that contexts end and exit handlers run.

    For the commands; a library does not change its host's signals. A signal that is ignored (nohup)
    stays so, one that has a handler gets to it. A second signal ends the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)


def _leave(number, frame) -> None:
    for other in ENDING_SIGNALS:
        if signal.getsignal(other) is _leave:
            signal.signal(other, signal.SIG_DFL)
    _discard_all()  # at once: an exit in order may wait for a server
    raise Stopped(number)


@atexit.register
def _discard_all() -> None:
    for path, process in list(_folders.items()):
        if process == os.getpid():
            discard(path)


def _remove(root: Path) -> None:
    """Folders are moved up and then emptied: none is too deep for the stack, or its path too long
    for the system.
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


def _empty(entry: os.DirEntry, root: Path, folders: list[Path]) -> None:
    with contextlib.suppress(OSError):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry, 0o700)  # a move writes into the folder that is moved
            moved = root / secrets.token_hex(8)
            os.rename(entry, moved)
            folders.append(moved)
        else:
            os.unlink(entry)
