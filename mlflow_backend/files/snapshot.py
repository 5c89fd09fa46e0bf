"""The files of a run as one reproducible archive: equal files have equal hashes.

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
    """An archive on disk (`path`, a tar.gz of `size_bytes`) and its hash; its top folders are
    `project` and `inputs`.

    `changed` are files that changed while they were packed; the archive has the first `st_size`
    bytes that were read.
    """

    path: Path
    sha256: str
    size_bytes: int
    changed: tuple[str, ...] = ()

    def read(self) -> bytes:
        """The bytes of the archive."""
        return self.path.read_bytes()

    def discard(self) -> None:
        """Remove the archive."""
        scratch.discard(self.path.parent)


def take(
    listing: Listing, inputs: Mapping[str, Member], limits: Limits = DEFAULT_LIMITS
) -> Snapshot:
    """Archive the project's files below `project/`, and `inputs` under their names. Files that have
    vanished since they were listed are skipped.

    Raises SnapshotError above the limits, for a file that cannot be read or becomes smaller while
    it is read, and for a required file that has vanished.
    """
    members = {f"project/{name}": member for name, member in listing.members.items()} | dict(inputs)
    members = dict(sorted(members.items()))
    check_limits(members, limits)
    folder = scratch.make()
    try:
        return _archive(members, folder / FILE_NAME)
    except OSError as error:  # of the archive: files that are read raise SnapshotError
        scratch.discard(folder)
        raise SnapshotError(
            f"{folder}: the archive cannot be written: {error.strerror}",
            code="UnwritableFile",
            hint="free some disk space, or set TMPDIR",
        ) from None
    except BaseException:
        scratch.discard(folder)
        raise


def _archive(members: Mapping[str, Member], path: Path) -> Snapshot:
    with open(path, "wb") as raw:
        hashed = _Hashed(raw)
        with (
            gzip.GzipFile(
                filename="", mode="wb", fileobj=hashed, mtime=0, compresslevel=6
            ) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            changed = [name for name, member in members.items() if _add(archive, name, member)]
    return Snapshot(path, hashed.digest.hexdigest(), path.stat().st_size, tuple(changed))


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _add(archive: tarfile.TarFile, name: str, member: Member) -> bool:
    """Add a member; return whether its file changed while it was read."""
    info = tarfile.TarInfo(name)
    if member.kind == "folder":
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(info)
        return False
    if member.kind == "link":
        with contextlib.suppress(OSError):  # it has vanished, or is no longer a link
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(member.path)
        if info.linkname:
            archive.addfile(info)
        return False
    try:
        source = open_file(member.path)
    except FileNotFoundError:
        if member.required:
            raise SnapshotError(f"{member.path}: no longer exists", code="FileChanged") from None
        return False
    except OSError as error:
        raise _cannot_read(name, error) from None
    with source:
        before = os.fstat(source.fileno())
        info.mode = 0o755 if before.st_mode & 0o100 else 0o644
        info.size = before.st_size
        archive.addfile(info, _Source(source, info.size, name))
        after = os.fstat(source.fileno())
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


def _cannot_read(name: str, error: OSError) -> SnapshotError:
    return SnapshotError(
        f"{_user_name(name)}: cannot be read: {error.strerror}", code="UnreadableFile"
    )


def _user_name(name: str) -> str:
    """The name of a member as its user knows it."""
    return name.removeprefix("project/")


class _Source:
    """The file of a member, with the size in its header; its errors name it."""

    def __init__(self, file: BinaryIO, size_bytes: int, name: str) -> None:
        self._file = file
        self._left_bytes = size_bytes
        self._name = name

    def read(self, size_bytes: int = -1, /) -> bytes:
        try:
            data = self._file.read(size_bytes)
        except OSError as error:
            raise _cannot_read(self._name, error) from None
        self._left_bytes -= len(data)
        if len(data) < size_bytes and self._left_bytes:
            raise SnapshotError(
                f"{_user_name(self._name)}: became smaller while it was packed",
                code="FileChanged",
                hint="submit again when no program writes to it, or exclude it in .mlflowignore",
            )
        return data
