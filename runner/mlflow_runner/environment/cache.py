"""What is in a cache, and what goes when it is too large: never an environment that a run holds."""

import fcntl
import os
import shutil
import stat
from typing import Dict, Iterator, List, NamedTuple, Tuple

from mlflow_runner.environment import Place
from mlflow_runner.environment.remove import remove

BUILDING = "building.lock"
"""Held together by all that make environments, and alone by the process that removes packages that
they might link.
"""


class Entry(NamedTuple):
    """An environment in a cache.

    `size_bytes` counts files that packages share too; `used_at` is in seconds since the epoch.
    """

    key: str
    platform: str
    path: str
    state: str
    in_use: bool
    used_at: float
    size_bytes: int


def listing(cache_dir: str, sizes: bool = True) -> List[Entry]:
    """The environments in `cache_dir`, the most recently used one first."""
    found = []
    for folder in sorted(_folders(os.path.join(cache_dir, "environments"))):
        keys = {name.partition(".")[0] for name in os.listdir(folder)}
        for key in keys:
            place = Place(os.path.join(folder, key))
            if not os.path.isdir(place.path):
                continue
            in_use = not place.try_alone()
            place.release()
            state = "making" if in_use and place.state() == "missing" else place.state()
            size = sum(_inodes([place.path]).values()) if sizes else 0
            found.append(
                Entry(
                    key,
                    os.path.basename(folder),
                    place.path,
                    state,
                    in_use,
                    os.stat(place.lock).st_mtime,
                    size,
                )
            )
    return sorted(found, key=lambda entry: -entry.used_at)


def discard(entry: Entry) -> bool:
    """Remove one environment; False when a run holds it."""
    place = Place(entry.path)
    try:
        if not place.try_alone():
            return False
        if os.path.lexists(place.marker):
            os.unlink(place.marker)
        remove(place.path)
        return True
    finally:
        place.release()


def usage_bytes(cache_dir: str) -> int:
    """What the cache takes on its volume: a file that packages and environments share counts
    once.
    """
    return sum(_inodes([cache_dir]).values())


def clean(cache_dir: str, limit_bytes: int) -> Tuple[int, int]:
    """Remove until at most `limit_bytes` are used: packages that no environment links, then the
    least recently used environment.

    How many environments were removed, and the bytes that became free. What is in
    use stays, even where the limit cannot be kept then.
    """
    before = now = usage_bytes(cache_dir)
    removed = 0
    while now > limit_bytes:
        gone = _remove_unused_packages(cache_dir, now - limit_bytes)
        if not gone:
            candidates = [
                entry for entry in reversed(listing(cache_dir, sizes=False)) if not entry.in_use
            ]
            gone = next((True for entry in candidates if discard(entry)), False)
            removed += bool(gone)
        if not gone:
            break
        now = usage_bytes(cache_dir)
    return removed, before - now


class Building:
    """A context in which packages stay: while an environment is made of them."""

    def __init__(self, cache_dir: str):
        self._path = os.path.join(cache_dir, BUILDING)

    def __enter__(self):
        self._file = open(self._path, "a")
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def __exit__(self, *_):
        self._file.close()


def _remove_unused_packages(cache_dir: str, wanted_bytes: int) -> bool:
    """Remove packages that no environment links, oldest first, until `wanted_bytes` are free.

    False when there was none.
    """
    with open(os.path.join(cache_dir, BUILDING), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        freed = 0
        for _, path, size in sorted(_unused_packages(cache_dir)):
            if freed >= wanted_bytes:
                break
            shutil.rmtree(path, ignore_errors=True)
            freed += size
        return freed > 0


def _unused_packages(cache_dir: str) -> Iterator[Tuple[float, str, int]]:
    """Time of use, path and bytes of each unpacked package whose files have no second link."""
    for folder in (os.path.join(cache_dir, "conda"), os.path.join(cache_dir, "uv", "archive-v0")):
        for path in _folders(folder):
            files = [status for status in _files(path) if stat.S_ISREG(status.st_mode)]
            if not any(status.st_nlink > 1 for status in files):
                yield (
                    os.stat(path).st_mtime,
                    path,
                    sum(status.st_blocks * 512 for status in files) or 1,
                )


def _folders(path: str) -> Iterator[str]:
    if os.path.isdir(path):
        with os.scandir(path) as entries:
            yield from (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))


def _files(path: str) -> Iterator[os.stat_result]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            else:
                yield entry.stat(follow_symlinks=False)


def _inodes(paths: List[str]) -> Dict[Tuple[int, int], int]:
    """Bytes on disk by inode."""
    return {
        (status.st_dev, status.st_ino): status.st_blocks * 512
        for path in paths
        for status in _files(path)
    }
