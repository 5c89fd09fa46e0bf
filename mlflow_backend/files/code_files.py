"""The project's files, by the rules for code: without what ignore files name, secrets, and what
never belongs to a project.
"""

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlflow_backend.errors import SnapshotError
from mlflow_backend.files.git_checkout import work_tree
from mlflow_backend.files.ignore import MOST_BYTES, Pattern, Rules
from mlflow_backend.files.listing import (
    DEFAULT_LIMITS,
    Folder,
    Limits,
    Listing,
    Member,
    Walk,
    check_limits,
    count,
    readable,
)
from mlflow_backend.plain_text import plain
from mlflow_runner.run.unpack import leads_out

IGNORE_FILES = (".mlflowignore", ".amlignore", ".gitignore")
GIT_IGNORE = IGNORE_FILES[-1]
OF_PROGRAMS = {
    ".git",
    ".hg",
    ".svn",
    "__pycache__",
    ".ipynb_checkpoints",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".DS_Store",
}
OF_RUNS = {
    "mlruns",
    "mlartifacts",
    "mlflow.db",
    "mlflow.db-journal",
    "mlflow.db-wal",
    "mlflow.db-shm",
    "node_modules",
}
"""Never part of a project, unless a `!` pattern without wildcards names one."""
ENVIRONMENT_MARKS = {"pyvenv.cfg", "conda-meta"}
MOST_COMPARISONS = 20_000_000
"""Of names with patterns, in all: about ten seconds."""
MOST_COUNTED = 2_000
"""So far are files counted that are left out."""
MOST_NAMED = 3


def project_files(directory: Path, limits: Limits = DEFAULT_LIMITS) -> Listing:
    """The files of the project in `directory`.

    Raises SnapshotError on a link out of the project, on what cannot be read, above the limits, and
    where nothing is left.
    """
    walk = _ProjectWalk(directory, limits)
    check_limits(walk.members, limits)  # before any file is read
    secrets = {
        name for name in walk.members if name not in walk.asked_for and walk.looks_secret(name)
    }
    members = {name: member for name, member in walk.members.items() if name not in secrets}
    if not members:
        raise SnapshotError(
            "the project has no files that may travel: see its ignore files (.mlflowignore, "
            ".amlignore, .gitignore)"
        )
    links = {
        name: os.readlink(member.path) for name, member in members.items() if member.kind == "link"
    }
    for name, target in links.items():
        if leads_out(name, links):
            raise walk.link_out(name, target)
    members |= {name: Member(directory / name, "folder") for name in walk.leaves(members)}
    check_limits(members, limits)
    ignored = dict(sorted(walk.ignored.items()))
    return Listing(
        dict(sorted(members.items())), tuple(sorted(secrets)), ignored, tuple(walk.passed_over)
    )


def describe_ignored(directory: Path, listing: Listing) -> str | None:
    """What ignore files leave out, as `left out by .gitignore: 12 files, 3.4 MB (data/, x.log)`;
    None where that is nothing.

    The count ends at some thousand files.
    """
    if not listing.ignored:
        return None
    files, size_bytes, more = _count([directory / name for name in listing.ignored])
    names = [*itertools.islice(listing.ignored, MOST_NAMED)]
    if len(listing.ignored) > MOST_NAMED:
        names.append(f"and {len(listing.ignored) - MOST_NAMED} more")
    kinds = " and ".join(sorted(set(listing.ignored.values())))
    return (
        f"left out by {kinds}: {'more than ' * more}{count(files)}, {readable(size_bytes)} "
        f"({plain(', '.join(names))})"
    )


def _count(pending: list[Path]) -> tuple[int, int, bool]:
    files = size_bytes = 0
    while pending:
        path = pending.pop()
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                with os.scandir(path) as scan:
                    pending += [Path(entry) for entry in itertools.islice(scan, MOST_COUNTED + 1)]
                continue
        except OSError:
            continue
        if files >= MOST_COUNTED:
            return files, size_bytes, True
        files, size_bytes = files + 1, size_bytes + status.st_size
    return files, size_bytes, False


class _Layer(NamedTuple):
    """An ignore file in force: its kind, its folder's name in the repository with a `/` behind it,
    and its rules.
    """

    kind: str
    base: bytes
    rules: Rules


class _ProjectFolder(NamedTuple):
    """With the ignore files in force around it, and the kinds of them that count in it."""

    path: Path
    name: str
    layers: tuple[_Layer, ...]
    kinds: tuple[str, ...] = IGNORE_FILES


class _ProjectWalk(Walk):
    """The files of a project, secrets included.

    `asked_for` are those that a `!` pattern names, without wildcards.
    """

    def __init__(self, root: Path, limits: Limits):
        super().__init__(root, limits, "name it in .mlflowignore to leave it out")
        self.asked_for: set[str] = set()
        self.ignored: dict[str, str] = {}
        self.passed_over: list[str] = []
        self._compared = 0
        self._above, layers = self._repository(root)
        self.run(_ProjectFolder(root, "", layers))

    def visit(self, folder: _ProjectFolder) -> Iterator[Folder]:
        entries = self.entries(folder)
        names = {entry.name for entry in entries}
        if folder.name and names & ENVIRONMENT_MARKS:
            self.passed_over.append(folder.name)
            return
        self.folders.append(folder.name)
        layers, kinds = self._layers(folder, names)
        for entry in entries:
            name, is_folder = folder.name + entry.name, entry.is_dir(follow_symlinks=False)
            pattern, kind = self._match(layers, name, is_folder)
            is_named = pattern and pattern.negated and pattern.literal is not None
            if not is_named and entry.name in OF_PROGRAMS:
                continue
            is_ignored = pattern and not pattern.negated
            if (
                not is_named
                and entry.name in OF_RUNS
                or is_ignored
                and is_folder
                and _is_environment(entry)
            ):
                self.passed_over.append(name)
            elif is_ignored:
                self.ignored[name + "/" * is_folder] = kind
            elif is_folder:
                yield _ProjectFolder(Path(entry), name + "/", layers, kinds)
            elif member := self._member(entry, name):
                self.members[name] = member
                if is_named:
                    self.asked_for.add(name)

    def _member(self, entry: os.DirEntry, name: str) -> Member | None:
        """None for what has vanished, and for what no archive can hold: sockets, pipes, devices."""
        try:
            if entry.is_symlink():
                target = os.readlink(entry)
                if os.path.isabs(target) or not Path(os.path.realpath(entry)).is_relative_to(
                    os.path.realpath(self.root)
                ):
                    raise self.link_out(name, target)
                return Member(Path(entry), "link")
            return (
                Member(Path(entry), "file", entry.stat(follow_symlinks=False).st_size)
                if entry.is_file()
                else None
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.cannot_read(name, error) from None

    def _repository(self, root: Path) -> tuple[bytes, tuple[_Layer, ...]]:
        """Where the project is in its git repository, and the rules of the folders above it
        there.
        """
        real = Path(os.path.realpath(root))
        top = work_tree(root, of_this_user=True)
        if any((root / kind).is_file() for kind in IGNORE_FILES[:-1]):
            return b"", ()
        between = [place for place in reversed(real.parents) if place.is_relative_to(top)]
        files = [(place, place / GIT_IGNORE) for place in between if (place / GIT_IGNORE).is_file()]
        return _base(real, top), tuple(
            _Layer(GIT_IGNORE, _base(place, top), self._read(file, str(file)))
            for place, file in files
        )

    def _layers(
        self, folder: _ProjectFolder, names: set[str]
    ) -> tuple[tuple[_Layer, ...], tuple[str, ...]]:
        """With the folder's own ignore file: the first kind there is; of a later kind none counts
        from there on.
        """
        layers = folder.layers
        # another repository: git reads no rules of the one around it there
        if folder.name and ".git" in names:
            layers = tuple(layer for layer in layers if layer.kind != GIT_IGNORE)
        kind = next(
            (kind for kind in folder.kinds if kind in names and (folder.path / kind).is_file()),
            None,
        )
        if kind is None:
            return layers, folder.kinds
        rules = self._read(folder.path / kind, folder.name + kind)
        base = self._above + os.fsencode(folder.name)
        return (*layers, _Layer(kind, base, rules)), folder.kinds[: folder.kinds.index(kind) + 1]

    def _read(self, path: Path, name: str) -> Rules:
        try:
            with open(path, "rb") as file:
                data = file.read(MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                raise OSError(errno.EFBIG, f"it is larger than {readable(MOST_BYTES)}")
        except OSError as error:
            raise SnapshotError(
                f"{name}: cannot be read: {error.strerror}: correct or remove it"
            ) from None
        return Rules(data)

    def _match(
        self, layers: tuple[_Layer, ...], name: str, is_folder: bool
    ) -> tuple[Pattern | None, str]:
        """The pattern that decides, and the kind of file it is in: the deepest file that speaks of
        the name.
        """
        path = self._above + os.fsencode(name)
        for layer in reversed(layers):
            self._compared += layer.rules.cost
            if pattern := layer.rules.match(path[len(layer.base) :], is_folder):
                return pattern, layer.kind
        if self._compared > MOST_COMPARISONS:
            raise SnapshotError(
                f"{self.root}: its ignore files have too many patterns for so many files: name "
                "whole folders in them"
            )
        return None, ""


def _base(place: Path, top: Path) -> bytes:
    name = place.relative_to(top).as_posix()
    return b"" if name == "." else os.fsencode(name) + b"/"


def _is_environment(folder: os.DirEntry) -> bool:
    return any(os.path.lexists(os.path.join(folder, mark)) for mark in ENVIRONMENT_MARKS)
