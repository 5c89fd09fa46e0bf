"""What would travel with a run, and the walk that finds it.

Folders are walked without recursion, and every number that a project chooses has a limit: no tree
makes this long.
"""

import errno
import itertools
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from mlflow_backend.errors import SnapshotError
from mlflow_backend.files import secret_files

MOST_DEPTH = 200
SEEN_PER_FILE = 50
"""How many files and folders may be looked at for each one that may travel."""


class Limits(NamedTuple):
    """How much may travel, and what to do about more.

    The defaults are those of Azure Machine Learning's snapshots.
    """

    files: int = 2_000
    bytes: int = 300_000_000
    remedy: str = (
        "name what is not needed in .mlflowignore, or set 'snapshot_bytes' and 'snapshot_files' in "
        "the target"
    )


DEFAULT_LIMITS = Limits()


class Member(NamedTuple):
    """What stands at one name of the archive.

    A `required` one that has vanished when it is read is an error.
    """

    path: Path
    kind: Literal["file", "link", "folder"]
    size_bytes: int = 0
    required: bool = False


@dataclass(frozen=True)
class Listing:
    """What would travel: names (with `/`) to members, sorted, and what would not.

    A folder is a member where nothing in it is one. `ignored` are names with the kind of file that
    says so, `passed_over` data and environments that never belong to a project.
    """

    members: Mapping[str, Member]
    secrets: tuple[str, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()

    @property
    def files(self) -> int:
        return sum(member.kind != "folder" for member in self.members.values())

    @property
    def size_bytes(self) -> int:
        return sum(member.size_bytes for member in self.members.values())

    def is_whole(self, folder: str) -> bool:
        """Whether all that the folder holds travels, but for what programs leave everywhere, such
        as `__pycache__`.
        """
        names = (
            name.rstrip("/") + "/" for name in (*self.secrets, *self.ignored, *self.passed_over)
        )
        return not any(
            name.startswith(f"{folder}/") or f"{folder}/".startswith(name) for name in names
        )


def check_limits(members: Mapping[str, Member], limits: Limits) -> None:
    """Raises SnapshotError that names the largest."""
    total = sum(member.size_bytes for member in members.values())
    if total <= limits.bytes and len(members) <= limits.files:
        return
    largest = sorted(members, key=lambda name: members[name].size_bytes, reverse=True)[:5]
    listed = ", ".join(
        f"{name.removeprefix('project/')} ({readable(members[name].size_bytes)})"
        for name in largest
    )
    raise SnapshotError(
        f"{readable(total)} in {count(len(members))}, but at most {readable(limits.bytes)} in "
        f"{count(limits.files)} travel with a run; largest: {listed}; {limits.remedy}"
    )


def count(files: int) -> str:
    return f"{files} file{'s' * (files != 1)}"


def readable(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"


class Folder(NamedTuple):
    """A folder to visit: where it is, and its name with a `/` behind it (empty for the project's
    own).
    """

    path: Path
    name: str


@dataclass
class Walk:
    """What was found so far: members, and the names of the folders that were looked into.

    `remedy` ends the sentence about what cannot travel.
    """

    root: Path
    limits: Limits
    remedy: str
    members: dict[str, Member] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    seen: int = 0

    def run(self, start: Folder) -> None:
        pending = [start]
        while pending:
            pending += self.visit(pending.pop())

    def visit(self, folder: Folder) -> Iterable[Folder]:
        """Take in the files of one folder; its own folders come back, to be visited."""
        raise NotImplementedError

    def entries(self, folder: Folder) -> list[os.DirEntry]:
        """Sorted by name; none where the folder has vanished."""
        most = self.limits.files * SEEN_PER_FILE
        if folder.name.count("/") > MOST_DEPTH:
            raise SnapshotError(
                f"{folder.name[:80]}...: is nested deeper than {MOST_DEPTH} folders: {self.remedy}"
            )
        try:
            with os.scandir(folder.path) as scan:
                found = list(itertools.islice(scan, most + 1))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self.cannot_read(folder.name or str(folder.path), error) from None
        self.seen += len(found)
        if self.seen > most:
            raise SnapshotError(
                f"{self.root}: has more than {most} files and folders, those that are left out "
                f"included; {self.limits.remedy}"
            )
        return sorted(found, key=lambda entry: entry.name)

    def cannot_read(self, name: str, error: OSError) -> SnapshotError:
        return SnapshotError(f"{name}: cannot be read: {error.strerror}: {self.remedy}")

    def link_out(self, name: str, target: str) -> SnapshotError:
        return SnapshotError(
            f"{name}: is a link out of the project (to {target}): copy what it points to, or "
            f"{self.remedy}"
        )

    def looks_secret(self, name: str, path: str | None = None) -> bool:
        """By its path (its name, if none is given) and, unless it is a link, by what it holds."""
        member, path = self.members[name], path or name
        if member.kind != "file":
            return False
        try:
            with open_file(member.path) as file:
                return secret_files.is_secret(path, file.read(secret_files.SEEN_BYTES))
        except FileNotFoundError:
            return secret_files.has_secret_name(path)
        except OSError as error:
            raise self.cannot_read(name, error) from None

    def leaves(self, members: Iterable[str]) -> list[str]:
        """The folders that hold none of `members`, but for those that hold another such folder."""
        full: set[str] = set()

        def fill(name: str) -> None:
            while (name := name.rpartition("/")[0]) and name not in full:
                full.add(name)

        for name in members:
            fill(name)
        found = []
        for folder in sorted(self.folders, key=lambda name: name.count("/"), reverse=True):
            name = folder.rstrip("/")
            if name and name not in full:
                found.append(name)
                fill(name)
        return found


def open_file(path: Path) -> BinaryIO:
    """The regular file that was listed.

    Raises FileNotFoundError where something else has taken its place, a link for example; OSError.
    """
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        file = open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR):
            raise FileNotFoundError(path) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileNotFoundError(path)
    return file
