"""The environment of a run: where it lies, whether it is whole, and that it stays while it is in
use.

This module is all that a run with a ready environment loads; `realise` makes one.

Next to each environment are two files. `KEY.lock` is held alone by the process that makes or
removes the environment, and together by the runs that use it. `KEY.json` is written last: without
it, what is there is removed and made again.
"""

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
    """The folder of all environments that are made in the same way as this one.

    A virtual environment points to a Python outside of it: images with another one keep theirs
    apart.
    """
    name = environment.platform
    if environment.python is not None:
        outside = hashlib.sha256(f"{sys.base_prefix} {sys.version}".encode()).hexdigest()[:8]
        name += f"-python-{'.'.join(map(str, sys.version_info[:3]))}-{outside}"
    return os.path.join(cache_dir, "environments", name)


def prefix(environment: Environment, cache_dir: str) -> str:
    """Where the environment lies on this machine; scripts in it hold this path, so it never
    moves.
    """
    return os.path.join(folder(environment, cache_dir), environment.key)


class Place:
    """One environment's place in a cache, and this process's hold on it.

    Holds last until the process ends, so that no other process removes what it uses.
    """

    def __init__(self, path: str):
        self.path = path
        self.marker = path + ".json"
        self.lock = path + ".lock"
        self._fd: Optional[int] = None

    def hold(self) -> bool:
        """Hold it together with others; False while another process makes it.

        A cache that is read-only needs no hold.
        """
        try:
            return self._try(fcntl.LOCK_SH)
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def try_alone(self) -> bool:
        """Take the exclusive lock; False while another process holds the lock."""
        return self._try(fcntl.LOCK_EX)

    def _try(self, kind: int) -> bool:
        fd = self.fd
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False

    @property
    def fd(self) -> int:
        """The open lock file, for a child process that waits for it."""
        if self._fd is None:
            self._fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def state(self) -> str:
        """`ready`, `missing`, or `changed`: made once, and no longer what it was."""
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
        """Write the marker: from now on the environment is ready.

        `stamps` are times of change (ns) by path in the environment.
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
        """Note that it was used now, for the cleaner, which removes the least recently used
        first.
        """
        try:
            os.utime(self.lock)
        except OSError:
            pass  # a read-only cache is not cleaned either


def _stamps(marker: Any, key: str) -> Dict[str, int]:
    """The stamps of a marker's content.

    Raises ValueError for a content that `Place.seal` did not write for this key.
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
    """Hold the environment if it is ready: the whole of a warm start."""
    place = Place(prefix(environment, cache_dir))
    if place.hold() and place.state() == "ready":
        place.touch()
        _held.append(place)
        return True
    place.release()
    return False


_held: List[Place] = []


def variables(environment: Environment, path: str, search_path: str) -> Dict[str, str]:
    """What activates the environment at `path` for a command."""
    found = {
        "PATH": f"{os.path.join(path, 'bin')}{os.pathsep}{search_path}",
        **dict(environment.variables),
    }
    found["CONDA_PREFIX" if environment.python is None else "VIRTUAL_ENV"] = path
    return found


def command(path: str, text: str) -> List[str]:
    """`text` under bash, as MLflow runs it; the scripts by which conda packages set variables run
    before it.
    """
    scripts = os.path.join(path, "etc", "conda", "activate.d")
    if os.path.isdir(scripts):
        activate = (
            'for script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do [ -r "$script" ] '
            '&& . "$script"; done; exec bash -c "$1"'
        )
        return ["bash", "-c", activate, "activate", text]
    return ["bash", "-c", text]
