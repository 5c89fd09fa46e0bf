"""Unpack the project's archive: checked against its hash, and never outside its folder."""

import hashlib
import os
import tarfile

from mlflow_runner.causes import Cause
from mlflow_runner.errors import RunnerError


def unpack(archive_path: str, sha256: str, directory: str) -> None:
    """Unpack the tar.gz at `archive_path` below `directory`.

    Members must be regular files, folders, or symbolic links, and none of them
    may lie or point outside `directory` (CVE-2007-4559; the `filter` argument of
    tarfile is missing before Python 3.11.4). Raises RunnerError otherwise, or when
    the bytes do not have the hash `sha256`; in both cases nothing is unpacked.
    """
    found = _sha256(archive_path)
    if found != sha256:
        raise RunnerError(Cause.SNAPSHOT_ERROR, f"The snapshot's sha256 is {found}, expected {sha256}: submit again.")
    root = os.path.realpath(directory)
    with tarfile.open(archive_path, "r:gz") as archive:
        members = archive.getmembers()
        links = {}
        for member in members:
            _check(member, root, links)
        os.makedirs(root, exist_ok=True)
        for member in members:
            _write(archive, member, root)


def _check(member, root, links):
    target = os.path.normpath(os.path.join(root, member.name))
    if os.path.isabs(member.name) or not _inside(target, root):
        raise RunnerError(Cause.SNAPSHOT_ERROR, f"The snapshot has a member outside its folder: {member.name!r}.")
    if any(_inside(target, link) and target != link for link in links):
        raise RunnerError(Cause.SNAPSHOT_ERROR, f"The snapshot has a member behind a link: {member.name!r}.")
    if member.issym():
        points_to = os.path.normpath(os.path.join(os.path.dirname(target), member.linkname))
        if os.path.isabs(member.linkname) or not _inside(points_to, root):
            raise RunnerError(Cause.SNAPSHOT_ERROR, f"The snapshot has a link out of its folder: {member.name!r}.")
        links[target] = points_to
    elif not (member.isfile() or member.isdir()):
        raise RunnerError(Cause.SNAPSHOT_ERROR, f"The snapshot has a special file: {member.name!r}.")


def _inside(path, root):
    return path == root or path.startswith(root + os.sep)


def _write(archive, member, root):
    target = os.path.join(root, member.name)
    if member.isdir():
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.lexists(target):
        os.unlink(target)
    if member.issym():
        os.symlink(member.linkname, target)
        return
    with archive.extractfile(member) as source, open(target, "wb") as file:
        while True:
            block = source.read(1 << 20)
            if not block:
                break
            file.write(block)
    os.chmod(target, 0o755 if member.mode & 0o111 else 0o644)


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
