"""The files of a run as one archive: same files, same bytes, same hash.

Names, contents and the executable bit count; times, owners and other permissions do not.
"""

import contextlib
import gzip
import hashlib
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mlflow_backend import scratch
from mlflow_backend.errors import SnapshotError
from mlflow_backend.files.listing import (
    DEFAULT_LIMITS,
    Limits,
    Listing,
    Member,
    check_limits,
    open_file,
)

FILE_NAME = "snapshot.tar.gz"


@dataclass(frozen=True)
class Snapshot:
    """An archive on disk (`path`, a tar.gz of `size_bytes`) and its hash; `project` and `inputs`
    are its top folders.

    `changed` are files that were written to while they were packed: what they held at first
    travels.
    """

    path: Path
    sha256: str
    size_bytes: int
    changed: tuple[str, ...] = ()

    def read(self) -> bytes:
        return self.path.read_bytes()

    def discard(self) -> None:
        scratch.discard(self.path.parent)


def take(
    listing: Listing, inputs: Mapping[str, Member], limits: Limits = DEFAULT_LIMITS
) -> Snapshot:
    """Archive the project's files below `project/`, and `inputs` at their names. What has vanished
    since is left out.

    Raises SnapshotError above the limits, on what cannot be read or becomes smaller meanwhile, and
    for a required file that is gone.
    """
    members = {f"project/{name}": member for name, member in listing.members.items()} | dict(inputs)
    members = dict(sorted(members.items()))
    check_limits(members, limits)
    folder = scratch.make()
    try:
        return _archive(members, folder / FILE_NAME)
    except OSError as error:  # of the archive: what is read has errors of its own
        scratch.discard(folder)
        raise SnapshotError(
            f"{folder}: the archive cannot be written: {error.strerror}: make room, or set TMPDIR"
        ) from None
    except BaseException:
        scratch.discard(folder)
        raise


def _archive(members: Mapping[str, Member], path: Path) -> Snapshot:
    changed = []
    with open(path, "wb") as raw:
        hashed = _Hashed(raw)
        with gzip.GzipFile(
            filename="", mode="wb", fileobj=hashed, mtime=0, compresslevel=6
        ) as zipped:
            with tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for name, member in members.items():
                    if _add(archive, name, member):
                        changed.append(name)
    return Snapshot(path, hashed.digest.hexdigest(), path.stat().st_size, tuple(changed))


class _Hashed:
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _add(archive: tarfile.TarFile, name: str, member: Member) -> bool:
    """Whether the file changed while it was read."""
    info = tarfile.TarInfo(name)
    if member.kind == "folder":
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(info)
        return False
    if member.kind == "link":
        with contextlib.suppress(OSError):  # it has vanished, or is no link any more
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(member.path)
        if info.linkname:
            archive.addfile(info)
        return False
    try:
        source = open_file(member.path)
    except FileNotFoundError:
        if member.required:
            raise SnapshotError(f"{member.path}: is not there any more") from None
        return False
    except OSError as error:
        raise SnapshotError(f"{_shown(name)}: cannot be read: {error.strerror}") from None
    with source:
        before = os.fstat(source.fileno())
        info.mode = 0o755 if before.st_mode & 0o100 else 0o644
        info.size = before.st_size
        archive.addfile(info, _Source(source, info.size, _shown(name)))
        after = os.fstat(source.fileno())
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


def _shown(name: str) -> str:
    return name.removeprefix("project/")


class _Source:
    """A file of a known size. Its errors name it, and are none of the archive's own."""

    def __init__(self, file: BinaryIO, size_bytes: int, name: str):
        self._file = file
        self._left_bytes = size_bytes
        self._name = name

    def read(self, size_bytes: int) -> bytes:
        try:
            data = self._file.read(size_bytes)
        except OSError as error:
            raise SnapshotError(f"{self._name}: cannot be read: {error.strerror}") from None
        self._left_bytes -= len(data)
        if len(data) < size_bytes and self._left_bytes:
            raise SnapshotError(
                f"{self._name}: became smaller while it was packed: submit again when nothing "
                "writes to it, or name it in .mlflowignore"
            )
        return data
