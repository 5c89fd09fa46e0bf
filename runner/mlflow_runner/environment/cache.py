"""What is in a cache, and what is removed when it is too large: never an environment in use."""

import contextlib
import fcntl
import os
import shutil
import stat
from typing import Dict, Iterator, List, NamedTuple, Tuple

from mlflow_runner.environment import Slot
from mlflow_runner.environment.remove import remove

BUILDING = "building.lock"
"""Locked shared by every process that builds an environment, and exclusively by the process that
removes packages.
"""


class Entry(NamedTuple):
    """An environment in a cache.

    `state` is that of the `Slot`, or `making` while it is being built. `size_bytes` includes files
    that packages share; `used_at` is in seconds since the epoch.
    """

    key: str
    platform: str
    path: str
    state: str
    in_use: bool
    used_at: float
    size_bytes: int


def list_entries(cache_dir: str, sizes: bool = True) -> List[Entry]:
    """The environments in `cache_dir`, the most recently used one first; `size_bytes` is 0 without
    `sizes`.
    """
    entries = []
    for folder in sorted(_folders(os.path.join(cache_dir, "environments"))):
        keys = {name.partition(".")[0] for name in os.listdir(folder)}
        for key in keys:
            slot = Slot(os.path.join(folder, key))
            if not os.path.isdir(slot.path):
                continue
            in_use = not slot.try_exclusive()
            slot.release()
            state = slot.state()
            entries.append(
                Entry(
                    key=key,
                    platform=os.path.basename(folder),
                    path=slot.path,
                    state="making" if in_use and state == "missing" else state,
                    in_use=in_use,
                    used_at=os.stat(slot.lock).st_mtime,
                    size_bytes=usage_bytes(slot.path) if sizes else 0,
                )
            )
    return sorted(entries, key=lambda entry: -entry.used_at)


def discard(entry: Entry) -> bool:
    """Remove one environment; False when a run uses it."""
    slot = Slot(entry.path)
    try:
        if not slot.try_exclusive():
            return False
        if os.path.lexists(slot.marker):
            os.unlink(slot.marker)
        remove(slot.path)
        return True
    finally:
        slot.release()


def usage_bytes(path: str) -> int:
    """The space that a folder takes on its volume: a file with several links in it counts once."""
    sizes: Dict[Tuple[int, int], int] = {
        (status.st_dev, status.st_ino): status.st_blocks * 512 for status in _files(path)
    }
    return sum(sizes.values())


def clean(cache_dir: str, limit_bytes: int) -> Tuple[int, int]:
    """Remove until at most `limit_bytes` are used: packages that no environment links, then the
    least recently used environment.

    The number of environments removed, and of bytes freed. An environment in use stays, even if
    the cache remains above the limit.
    """
    before = now = usage_bytes(cache_dir)
    removed = 0
    while now > limit_bytes:
        progress = _remove_unused_packages(cache_dir, now - limit_bytes)
        if not progress:
            candidates = [
                entry
                for entry in reversed(list_entries(cache_dir, sizes=False))
                if not entry.in_use
            ]
            progress = any(discard(entry) for entry in candidates)  # the first that it can
            removed += progress
        if not progress:
            break
        now = usage_bytes(cache_dir)
    return removed, before - now


@contextlib.contextmanager
def hold_packages(cache_dir: str) -> Iterator[None]:
    """Keep all packages in the cache while an environment is built from them."""
    with open(os.path.join(cache_dir, BUILDING), "a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _remove_unused_packages(cache_dir: str, wanted_bytes: int) -> bool:
    """Remove packages that no environment links, oldest first, until `wanted_bytes` are free.

    False if nothing could be removed.
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
