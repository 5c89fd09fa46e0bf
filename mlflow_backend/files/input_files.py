"""The files that a parameter names: all of them, with what links point to."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlflow_backend.errors import SnapshotError
from mlflow_backend.files.listing import DEFAULT_LIMITS, Folder, Limits, Listing, Member, Walk


def input_files(
    path: Path, name: str, limits: Limits = DEFAULT_LIMITS, within: Path | None = None
) -> Listing:
    """All that the file or folder `path` holds, below `name` in the archive.

    `within`: the folder of the project whose own default names it. Then no link may lead out of it,
    and what looks like a secret is left out; without it secrets travel and are only named. Raises
    SnapshotError on what cannot be read.
    """
    top = Path(os.path.realpath(within)) if within else None
    walk = _InputWalk(path, name, limits, top)
    paths = {
        name: member.path.relative_to(top) if top else member.path
        for name, member in walk.members.items()
    }
    secrets = [name for name, real in paths.items() if walk.looks_secret(name, real.as_posix())]
    left_out = set(secrets) if within else set()
    members = {name: member for name, member in walk.members.items() if name not in left_out}
    members |= {folder: Member(path, "folder") for folder in walk.leaves(members)}
    return Listing(dict(sorted(members.items())), tuple(sorted(secrets)))


class _InputFolder(NamedTuple):
    """With the identity of each folder that it is in, itself included."""

    path: Path
    name: str
    chain: tuple[tuple[int, int], ...]


class _InputWalk(Walk):
    """All files below a path, links followed, none of them out of `within`."""

    def __init__(self, path: Path, name: str, limits: Limits, within: Path | None):
        super().__init__(path, limits, "make it readable, or pass another path with -P NAME=VALUE")
        self._within = within
        found = self._find(path, str(path))
        if found is None:
            raise SnapshotError(f"{path}: there is no such file or folder")
        real, status = found
        if stat.S_ISDIR(status.st_mode):
            self.run(_InputFolder(real, f"{name}/", (_identity(status),)))
        elif stat.S_ISREG(status.st_mode):
            self.members[name] = Member(real, "file", status.st_size, required=True)
        else:
            raise SnapshotError(f"{path}: is neither a file nor a folder")

    def visit(self, folder: _InputFolder) -> Iterator[Folder]:
        self.folders.append(folder.name)
        for entry in self.entries(folder):
            name = folder.name + entry.name
            found = self._find(Path(entry), name)
            if found is None:
                # it has vanished, or a link points to nothing: the command would not find it here
                # either
                continue
            real, status = found
            if stat.S_ISDIR(status.st_mode):
                if _identity(status) in folder.chain:
                    raise SnapshotError(
                        f"{name}: is a link to a folder that it is in: remove the link"
                    )
                yield _InputFolder(real, f"{name}/", (*folder.chain, _identity(status)))
            elif stat.S_ISREG(status.st_mode):
                self.members[name] = Member(real, "file", status.st_size)

    def _find(self, path: Path, name: str) -> tuple[Path, os.stat_result] | None:
        """What is there once links are followed; None for nothing."""
        real = Path(os.path.realpath(path))
        if self._within and not real.is_relative_to(self._within):
            raise self.link_out(name, str(real))
        try:
            return real, os.lstat(real)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.cannot_read(name, error) from None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
