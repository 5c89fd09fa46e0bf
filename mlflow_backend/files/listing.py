"""The files that would travel with a run, and the walk that lists them.

The walk does not recurse, and every number that a project chooses has a limit, so that it ends soon
for any tree.
"""

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Generic, Literal, NamedTuple, Protocol, TypeVar

from mlflow_backend.errors import SnapshotError
from mlflow_backend.files import secret_files

MOST_DEPTH = 200
ENTRIES_PER_FILE = 50
"""How many files and folders may be listed for each one that may travel."""


class Limits(NamedTuple):
    """How much may travel, and the hint for a project with more.

    The defaults are those of Azure Machine Learning's snapshots.
    """

    files: int = 2_000
    bytes: int = 300_000_000
    remedy: str = (
        "exclude what the run does not need in .mlflowignore, or set 'snapshot_bytes' and "
        "'snapshot_files' in the target"
    )


DEFAULT_LIMITS = Limits()


class Member(NamedTuple):
    """The file, link or folder for one name of the archive.

    If a `required` file has vanished when it is read, that is an error.
    """

    path: Path
    kind: Literal["file", "link", "folder"]
    size_bytes: int = 0
    required: bool = False


@dataclass(frozen=True)
class Listing:
    """What would travel: `members` by name (with `/`), sorted, and what would not.

    Only a folder without members is a member itself. `ignored` maps names to the kind of ignore
    file that excludes them; `passed_over` are data and environments that are never part of a
    project.
    """

    members: Mapping[str, Member]
    secrets: tuple[str, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()

    @property
    def files(self) -> int:
        """The number of files and links."""
        return sum(member.kind != "folder" for member in self.members.values())

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(member.size_bytes for member in self.members.values())

    def is_whole(self, folder: str) -> bool:
        """Whether all files of the folder travel, apart from caches such as `__pycache__`."""
        names = (
            name.rstrip("/") + "/" for name in (*self.secrets, *self.ignored, *self.passed_over)
        )
        return not any(
            name.startswith(f"{folder}/") or f"{folder}/".startswith(name) for name in names
        )


def check_limits(members: Mapping[str, Member], limits: Limits) -> None:
    """Raises SnapshotError above the limits, naming the largest members."""
    total = sum(member.size_bytes for member in members.values())
    if total <= limits.bytes and len(members) <= limits.files:
        return
    largest = sorted(members, key=lambda name: members[name].size_bytes, reverse=True)[:5]
    listed = ", ".join(
        f"{name.removeprefix('project/')} ({format_size(members[name].size_bytes)})"
        for name in largest
    )
    raise SnapshotError(
        f"{format_size(total)} in {format_count(len(members))} exceeds the limit of "
        f"{format_size(limits.bytes)} in {format_count(limits.files)}; largest: {listed}",
        code="TooLarge",
        hint=limits.remedy,
    )


def format_count(files: int) -> str:
    """The number of files with the word `file` or `files`."""
    return f"{files} file{'s' * (files != 1)}"


def format_size(size_bytes: int) -> str:
    """The size with its unit, kB or MB."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"


class Folder(Protocol):
    """A folder to visit; its name has a trailing `/`, the root's is empty."""

    @property
    def path(self) -> Path:
        """The path on this machine."""

    @property
    def name(self) -> str:
        """The name in the archive."""


Visited = TypeVar("Visited", bound=Folder)


@dataclass
class Walk(Generic[Visited]):
    """A walk through folders: the members and the names of the folders so far.

    `remedy` is the hint for a file that cannot travel, `listed` the number of directory entries.
    """

    root: Path
    limits: Limits
    remedy: str
    members: dict[str, Member] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    listed: int = 0

    def run(self, start: Visited) -> None:
        """Visit `start` and all folders below it."""
        pending = [start]
        while pending:
            pending += self.visit(pending.pop())

    def visit(self, folder: Visited) -> Iterable[Visited]:
        """Add the folder's files to the members; return its folders, to be visited next."""
        raise NotImplementedError

    def entries(self, folder: Visited) -> list[os.DirEntry[str]]:
        """The folder's entries, sorted by name; none if the folder has vanished."""
        most = self.limits.files * ENTRIES_PER_FILE
        if folder.name.count("/") > MOST_DEPTH:
            raise SnapshotError(
                f"{folder.name[:80]}...: is nested deeper than {MOST_DEPTH} folders",
                hint=self.remedy,
            )
        try:
            with os.scandir(folder.path) as scan:
                entries = list(itertools.islice(scan, most + 1))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self.cannot_read(folder.name or str(folder.path), error) from None
        self.listed += len(entries)
        if self.listed > most:
            raise SnapshotError(
                f"{self.root}: has more than {most} files and folders, excluded ones among them",
                code="TooLarge",
                hint=self.limits.remedy,
            )
        return sorted(entries, key=lambda entry: entry.name)

    def cannot_read(self, name: str, error: OSError) -> SnapshotError:
        """The error for a file or folder that the system cannot read."""
        return SnapshotError(
            f"{name}: cannot be read: {error.strerror}", code="UnreadableFile", hint=self.remedy
        )

    def link_out(self, name: str, target: str) -> SnapshotError:
        """The error for a link out of the project."""
        return SnapshotError(
            f"{name}: is a link out of the project (to {target})",
            hint=f"replace it with a copy of its target, or {self.remedy}",
        )

    def looks_secret(self, name: str, path: str | None = None) -> bool:
        """Whether the member's `path` (by default its name) or content looks like a secret; links
        never do.
        """
        member, path = self.members[name], path or name
        if member.kind != "file":
            return False
        try:
            with open_file(member.path) as file:
                return secret_files.is_secret(path, file.read(secret_files.HEAD_BYTES))
        except FileNotFoundError:
            return secret_files.has_secret_name(path)
        except OSError as error:
            raise self.cannot_read(name, error) from None

    def leaves(self, members: Iterable[str]) -> list[str]:
        """The folders that contain none of `members`, and no other such folder."""
        full: set[str] = set()

        def fill(name: str) -> None:
            while (name := name.rpartition("/")[0]) and name not in full:
                full.add(name)

        for name in members:
            fill(name)
        empty = []
        for folder in sorted(self.folders, key=lambda name: name.count("/"), reverse=True):
            name = folder.rstrip("/")
            if name and name not in full:
                empty.append(name)
                fill(name)
        return empty


def open_file(path: Path) -> BinaryIO:
    """Open a listed regular file.

    Raises FileNotFoundError if it is no longer a regular file but, for example, a link; OSError.
    """
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(
                open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags))
            )
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR):
                raise FileNotFoundError(path) from None
            raise
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise FileNotFoundError(path)
        stack.pop_all()
        return file
