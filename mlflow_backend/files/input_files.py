"""The files of a parameter: all of them, links followed."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlflow_backend.errors import SnapshotError
from mlflow_backend.files.listing import DEFAULT_LIMITS, Limits, Listing, Member, Walk


def input_files(
    path: Path, name: str, limits: Limits = DEFAULT_LIMITS, within: Path | None = None
) -> Listing:
    """The file `path`, or all files of the folder `path`, as `name` in the archive.

    `within` is the project's folder if the project's own default names the path: then no link may
    lead out of it, and files that look like secrets are excluded. Otherwise secrets travel, and the
    listing names them. Raises SnapshotError for a file that cannot be read.
    """
    top = Path(os.path.realpath(within)) if within else None
    walk = _InputWalk(path, name, limits, top)
    paths = {
        name: member.path.relative_to(top) if top else member.path
        for name, member in walk.members.items()
    }
    secrets = [name for name, real in paths.items() if walk.looks_secret(name, real.as_posix())]
    excluded = set(secrets) if within else set()
    members = {name: member for name, member in walk.members.items() if name not in excluded}
    members |= {folder: Member(path, "folder") for folder in walk.leaves(members)}
    return Listing(dict(sorted(members.items())), tuple(sorted(secrets)))


class _InputFolder(NamedTuple):
    """A folder with the identities of itself and of each folder around it."""

    path: Path
    name: str
    chain: tuple[tuple[int, int], ...]


class _InputWalk(Walk[_InputFolder]):
    """All files below a path, links followed, but none out of `within`."""

    def __init__(self, path: Path, name: str, limits: Limits, within: Path | None) -> None:
        super().__init__(path, limits, "make it readable, or pass another path with -P NAME=VALUE")
        self._within = within
        resolved = self._resolve(path, str(path))
        if resolved is None:
            raise SnapshotError(f"{path}: there is no such file or folder", code="NotFound")
        real, status = resolved
        if stat.S_ISDIR(status.st_mode):
            self.run(_InputFolder(real, f"{name}/", (_identity(status),)))
        elif stat.S_ISREG(status.st_mode):
            self.members[name] = Member(real, "file", status.st_size, required=True)
        else:
            raise SnapshotError(f"{path}: is neither a file nor a folder")

    def visit(self, folder: _InputFolder) -> Iterator[_InputFolder]:
        self.folders.append(folder.name)
        for entry in self.entries(folder):
            name = folder.name + entry.name
            resolved = self._resolve(Path(entry), name)
            if resolved is None:  # as for the command here
                continue
            real, status = resolved
            if stat.S_ISDIR(status.st_mode):
                if _identity(status) in folder.chain:
                    raise SnapshotError(
                        f"{name}: is a link to a folder that contains it", hint="remove the link"
                    )
                yield _InputFolder(real, f"{name}/", (*folder.chain, _identity(status)))
            elif stat.S_ISREG(status.st_mode):
                self.members[name] = Member(real, "file", status.st_size)

    def _resolve(self, path: Path, name: str) -> tuple[Path, os.stat_result] | None:
        """The path with links followed, and its status; None if it does not exist."""
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
