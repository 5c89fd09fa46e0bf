"""Unpack the project's archive: checked against its hash, and never outside its folder."""

import contextlib
import hashlib
import os
import posixpath
import stat
import tarfile
import zlib
from typing import IO, Dict, Iterator, List, Mapping, Sequence

from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.errors import RunnerError

MOST_MEMBERS = 300_000
MOST_BYTES = 100_000_000_000
MOST_LINKS = 40
"""The number of links that one path may lead through; Linux has the same limit."""
BLOCK_BYTES = 1 << 20


def unpack(archive_path: str, sha256: str, directory: str) -> None:
    """Unpack the tar.gz at `archive_path` below `directory`.

    The file is opened once: the bytes that are unpacked are the ones that have the hash `sha256`
    (hex). Members must be regular files, folders, or symbolic links, with normalized names, and
    none may lie or point outside `directory` (CVE-2007-4559, CVE-2025-4517; the `filter` argument
    of tarfile is missing before Python 3.11.4). Every path is opened part by part, and no part may
    be a link. Raises RunnerError otherwise, before anything is unpacked unless the error shows only
    while writing.
    """
    try:
        with open(archive_path, "rb") as file:
            actual = _sha256(file)
            if actual != sha256:
                raise _error(f"The snapshot's sha256 is {actual}, expected {sha256}: submit again.")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:gz") as archive:
                members = _read_members(archive)
                _check(members)
                os.makedirs(directory, exist_ok=True)
                root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    for member in members:
                        _write(archive, member, root)
                finally:
                    os.close(root)
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise _error(f"The snapshot could not be unpacked: {error}.") from None


def leads_out(name: str, links: Mapping[str, str]) -> bool:
    """Whether the link `name` points outside its archive, or to itself.

    `links` are all links of the archive: names to targets. Each part of a path is followed as the
    system does, because `a/..` is another folder than it seems where `a` is a link.
    """
    place = name.split("/")[:-1]
    parts = links[name].split("/")[::-1]
    followed = 0
    if links[name].startswith("/"):
        return True
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not place:
                return True
            place.pop()
            continue
        place.append(part)
        target = links.get("/".join(place))
        if target is not None:
            followed += 1
            if followed > MOST_LINKS or target.startswith("/"):
                return True
            place.pop()
            parts += target.split("/")[::-1]
    return False


def _read_members(archive: tarfile.TarFile) -> List[tarfile.TarInfo]:
    """All members, up to limits that no project reaches. Raises RunnerError."""
    members, size = [], 0
    for member in archive:
        members.append(member)
        size += member.size
        if len(members) > MOST_MEMBERS or size > MOST_BYTES:
            raise _error(
                f"The snapshot has more than {MOST_MEMBERS} members or {MOST_BYTES} bytes."
            )
    return members


def _check(members: Sequence[tarfile.TarInfo]) -> None:
    """Raises RunnerError for a member that must not be unpacked."""
    kinds: Dict[str, bytes] = {}
    for member in members:
        name = member.name
        if not _is_normalized(name):
            raise _error(f"The snapshot contains a member with an unsafe name: {name!r}.")
        if name in kinds:
            raise _error(f"The snapshot contains a member twice: {name!r}.")
        if (
            member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)
            or member.sparse
        ):
            raise _error(f"The snapshot contains a special file: {name!r}.")
        if member.size < 0:
            raise _error(f"The snapshot contains a member with a negative size: {name!r}.")
        kinds[name] = member.type
    for name in kinds:
        _check_parents(name, kinds)
    links = {member.name: member.linkname for member in members if member.issym()}
    for name in links:
        if not links[name] or leads_out(name, links):
            raise _error(f"The snapshot contains a link that leads out of it: {name!r}.")


def _is_normalized(name: str) -> bool:
    return (
        bool(name)
        and not name.startswith("/")
        and posixpath.normpath(name) == name
        and name != "."
        and ".." not in name.split("/")
    )


def _check_parents(name: str, kinds: Mapping[str, bytes]) -> None:
    parent = posixpath.dirname(name)
    while parent:
        if kinds.get(parent, tarfile.DIRTYPE) != tarfile.DIRTYPE:
            raise _error(f"The snapshot contains a member below a link or a file: {name!r}.")
        parent = posixpath.dirname(parent)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, root: int) -> None:
    """Write the member below the open folder `root`."""
    folders, _, name = member.name.rpartition("/")
    with _open_folder(root, folders.split("/") if folders else []) as folder:
        if member.isdir():
            _make_folder(name, folder)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        source = archive.extractfile(member) if member.isreg() else None
        if source is None:
            os.symlink(member.linkname, name, dir_fd=folder)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with source, os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
            for block in iter(lambda: source.read(BLOCK_BYTES), b""):
                file.write(block)
            os.fchmod(file.fileno(), 0o755 if member.mode & 0o111 else 0o644)


@contextlib.contextmanager
def _open_folder(root: int, parts: Sequence[str]) -> Iterator[int]:
    """The folder `parts` below the open folder `root`, created if missing.

    Raises OSError where one of the parts is a link.
    """
    here = os.dup(root)
    try:
        for part in parts:
            _make_folder(part, here)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _make_folder(name: str, parent: int) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            raise


def _error(message: str) -> RunnerError:
    return RunnerError(Cause.SNAPSHOT_ERROR, message)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(BLOCK_BYTES), b""):
        digest.update(block)
    return digest.hexdigest()
