"""The environment of a run: its path, whether it is complete, and a lock on it while it is in use.

A run with a ready environment loads only this module; `realise` builds an environment.

Two files lie next to each environment. `KEY.lock` is locked exclusively by the process that builds
or removes the environment, and shared by the runs that use it. `KEY.json`, the marker, is written
last: an environment without it is removed and built again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import time
from typing import Any, Dict, List, Optional

from mlflow_runner.contract.submission import Environment

MARKER_FORMAT = 1


def folder(environment: Environment, cache_dir: str) -> str:
    """The folder of all environments that are built in the same way as this one.

    A virtual environment points to a Python outside of it, so each Python has a folder of its own.
    """
    name = environment.platform
    if environment.python is not None:
        outside = hashlib.sha256(f"{sys.base_prefix} {sys.version}".encode()).hexdigest()[:8]
        name += f"-python-{'.'.join(map(str, sys.version_info[:3]))}-{outside}"
    return os.path.join(cache_dir, "environments", name)


def prefix(environment: Environment, cache_dir: str) -> str:
    """The path of the environment on this machine; scripts in it contain this path, so it never
    moves.
    """
    return os.path.join(folder(environment, cache_dir), environment.key)


class Slot:
    """One environment in a cache: its folder `path`, its marker, and this process's lock on it.

    Locks last until the process ends or calls `release`: no other process removes what it uses.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.marker = path + ".json"
        self.lock = path + ".lock"
        self._fd: Optional[int] = None

    def try_shared(self) -> bool:
        """Take the lock together with others; False while another process builds the environment.

        A read-only cache needs no lock.
        """
        try:
            return self._try(fcntl.LOCK_SH)
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def try_exclusive(self) -> bool:
        """Take the exclusive lock; False while another process has the lock. Raises OSError."""
        return self._try(fcntl.LOCK_EX)

    def _try(self, kind: int) -> bool:
        fd = self.fd
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def fd(self) -> int:
        """The open lock file, for a child process that waits for the lock. Raises OSError."""
        if self._fd is None:
            self._fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._fd

    def release(self) -> None:
        """Release the lock, if this process has it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def state(self) -> str:
        """`ready`, `missing`, or `changed`: built once, and modified since."""
        try:
            with open(self.marker) as file:
                stamps = _stamps(json.load(file), os.path.basename(self.path))
            same = all(
                os.stat(os.path.join(self.path, name)).st_mtime_ns == stamp
                for name, stamp in stamps.items()
            )
        except FileNotFoundError as error:
            return "missing" if error.filename == self.marker else "changed"
        except (OSError, ValueError, RecursionError):
            return "changed"
        return "ready" if same else "changed"

    def seal(self, stamps: Dict[str, int]) -> None:
        """Write the marker, which makes the environment ready.

        `stamps` are modification times (ns) by path in the environment.
        """
        with open(self.marker + ".new", "w") as file:
            json.dump(
                {
                    "format": MARKER_FORMAT,
                    "key": os.path.basename(self.path),
                    "stamps": stamps,
                    "made": time.time(),
                },
                file,
            )
        os.replace(self.marker + ".new", self.marker)

    def touch(self) -> None:
        """Record the time of use: the cleaner removes the least recently used first."""
        with contextlib.suppress(OSError):  # a read-only cache is not cleaned either
            os.utime(self.lock)


def _stamps(marker: Any, key: str) -> Dict[str, int]:
    """The stamps of a marker's content.

    Raises ValueError for a content that `Slot.seal` did not write for this key.
    """
    if (
        not isinstance(marker, dict)
        or marker.get("format") != MARKER_FORMAT
        or marker.get("key") != key
    ):
        raise ValueError("not a marker of this environment")
    stamps = marker.get("stamps")
    if (
        not isinstance(stamps, dict)
        or not stamps
        or not all(type(stamp) is int for stamp in stamps.values())
    ):
        raise ValueError("no stamps")
    return stamps


def enter(environment: Environment, cache_dir: str) -> bool:
    """Lock the environment until the process ends, if it is ready: all that a warm start does."""
    slot = Slot(prefix(environment, cache_dir))
    if slot.try_shared() and slot.state() == "ready":
        slot.touch()
        _entered.append(slot)
        return True
    slot.release()
    return False


_entered: List[Slot] = []


def variables(environment: Environment, path: str, search_path: str) -> Dict[str, str]:
    """The variables that activate the environment at `path` for a command."""
    own = "CONDA_PREFIX" if environment.python is None else "VIRTUAL_ENV"
    return {
        "PATH": f"{os.path.join(path, 'bin')}{os.pathsep}{search_path}",
        **dict(environment.variables),
        own: path,
    }


def command(path: str, text: str) -> List[str]:
    """`text` under bash, as MLflow runs it, after the activation scripts of conda packages."""
    scripts = os.path.join(path, "etc", "conda", "activate.d")
    if os.path.isdir(scripts):
        activate = (
            'for script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do [ -r "$script" ] '
            '&& . "$script"; done; exec bash -c "$1"'
        )
        return ["bash", "-c", activate, "activate", text]
    return ["bash", "-c", text]
