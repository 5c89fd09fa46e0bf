"""The files of a project that travel with a run: not those that ignore files exclude, secrets, and
caches, environments and MLflow's own data.
"""

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
    Limits,
    Listing,
    Member,
    Walk,
    check_limits,
    format_count,
    format_size,
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
"""Excluded, unless a `!` pattern without wildcards includes them."""
ENVIRONMENT_MARKS = {"pyvenv.cfg", "conda-meta"}
MOST_COMPARISONS = 20_000_000
"""Comparisons of names with patterns: about ten seconds."""
MOST_COUNTED = 2_000
"""Ignored files are counted up to this number."""
MOST_NAMED = 3


def project_files(directory: Path, limits: Limits = DEFAULT_LIMITS) -> Listing:
    """The files of the project in `directory`.

    Raises SnapshotError for a link out of the project, a file that cannot be read, more files than
    the limits allow, and a project without files.
    """
    walk = _ProjectWalk(directory, limits)
    check_limits(walk.members, limits)  # before any file is read
    secrets = {
        name for name in walk.members if name not in walk.included and walk.looks_secret(name)
    }
    members = {name: member for name, member in walk.members.items() if name not in secrets}
    if not members:
        raise SnapshotError(
            "the project has no files to send",
            hint="see its ignore files (.mlflowignore, .amlignore, .gitignore)",
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
    """What ignore files exclude, as `excluded by .gitignore: 12 files, 3.4 MB (data/, x.log)`; None
    for nothing.
    """
    if not listing.ignored:
        return None
    files, size_bytes, more = _count([directory / name for name in listing.ignored])
    names = [*itertools.islice(listing.ignored, MOST_NAMED)]
    if len(listing.ignored) > MOST_NAMED:
        names.append(f"and {len(listing.ignored) - MOST_NAMED} more")
    kinds = " and ".join(sorted(set(listing.ignored.values())))
    amount = f"{'more than ' * more}{format_count(files)}, {format_size(size_bytes)}"
    return f"excluded by {kinds}: {amount} ({plain(', '.join(names))})"


def _count(pending: list[Path]) -> tuple[int, int, bool]:
    """Files and bytes below the paths, and whether there are more than MOST_COUNTED."""
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
    """An ignore file that applies: its kind, its folder's name in the repository with a trailing
    `/`, and its rules.
    """

    kind: str
    base: bytes
    rules: Rules


class _ProjectFolder(NamedTuple):
    """A folder with the ignore files that apply to it, and the kinds that are read in it."""

    path: Path
    name: str
    layers: tuple[_Layer, ...]
    kinds: tuple[str, ...] = IGNORE_FILES


class _ProjectWalk(Walk[_ProjectFolder]):
    """The files of a project, secrets among them.

    `included` are those that a `!` pattern without wildcards names.
    """

    def __init__(self, root: Path, limits: Limits) -> None:
        super().__init__(root, limits, "exclude it in .mlflowignore")
        self.included: set[str] = set()
        self.ignored: dict[str, str] = {}
        self.passed_over: list[str] = []
        self._compared = 0
        self._above, layers = self._repository(root)
        self.run(_ProjectFolder(root, "", layers))

    def visit(self, folder: _ProjectFolder) -> Iterator[_ProjectFolder]:
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
            if (not is_named and entry.name in OF_RUNS) or (
                is_ignored and is_folder and _is_environment(entry)
            ):
                self.passed_over.append(name)
            elif is_ignored:
                self.ignored[name + "/" * is_folder] = kind
            elif is_folder:
                yield _ProjectFolder(Path(entry), name + "/", layers, kinds)
            elif member := self._member(entry, name):
                self.members[name] = member
                if is_named:
                    self.included.add(name)

    def _member(self, entry: os.DirEntry[str], name: str) -> Member | None:
        """None for a file that has vanished, and for sockets, pipes and devices."""
        try:
            if entry.is_symlink():
                self._check_link(entry, name)
                return Member(Path(entry), "link")
            if entry.is_file():
                return Member(Path(entry), "file", entry.stat(follow_symlinks=False).st_size)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.cannot_read(name, error) from None
        return None

    def _check_link(self, entry: os.DirEntry[str], name: str) -> None:
        """Raises SnapshotError for a link out of the project; OSError."""
        target = os.readlink(entry.path)
        if os.path.isabs(target) or not Path(os.path.realpath(entry)).is_relative_to(
            os.path.realpath(self.root)
        ):
            raise self.link_out(name, target)

    def _repository(self, root: Path) -> tuple[bytes, tuple[_Layer, ...]]:
        """The project's folder in its git repository, and the rules of the folders above it."""
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
        """The ignore files that apply in the folder, and the kinds that are read below it: with the
        first kind that the folder has, later kinds no longer count.
        """
        layers = folder.layers
        # a nested repository: git does not apply the rules of the outer one to it
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
        except OSError as error:
            raise SnapshotError(
                f"{name}: cannot be read: {error.strerror}",
                code="UnreadableFile",
                hint="correct or remove it",
            ) from None
        if len(data) > MOST_BYTES:
            raise SnapshotError(
                f"{name}: is larger than {format_size(MOST_BYTES)}",
                code="TooLarge",
                hint="correct or remove it",
            )
        return Rules(data)

    def _match(
        self, layers: tuple[_Layer, ...], name: str, is_folder: bool
    ) -> tuple[Pattern | None, str]:
        """The pattern that decides about the name, from the deepest ignore file with one that
        matches, and the kind of that file.
        """
        path = self._above + os.fsencode(name)
        for layer in reversed(layers):
            self._compared += layer.rules.cost
            if pattern := layer.rules.match(path[len(layer.base) :], is_folder):
                return pattern, layer.kind
        if self._compared > MOST_COMPARISONS:
            raise SnapshotError(
                f"{self.root}: its ignore files have too many patterns for so many files",
                code="TooLarge",
                hint="exclude whole folders",
            )
        return None, ""


def _base(place: Path, top: Path) -> bytes:
    name = place.relative_to(top).as_posix()
    return b"" if name == "." else os.fsencode(name) + b"/"


def _is_environment(folder: os.DirEntry[str]) -> bool:
    return any(os.path.lexists(os.path.join(folder, mark)) for mark in ENVIRONMENT_MARKS)
