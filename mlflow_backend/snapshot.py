"""The project's files as one archive: same files, same bytes, same hash.

Names, contents and the executable bit count; times, owners and other
permissions do not. What is left out is decided by `.mlflowignore`, else
`.amlignore`, else `.gitignore` (patterns as git reads them, in every folder),
and by the lists below.
"""

import gzip
import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow_backend.errors import SnapshotError

FILE_NAME = "snapshot.tar.gz"
MAX_BYTES = 300_000_000
MAX_FILES = 2_000
"""The limits of the snapshots that Azure Machine Learning takes."""

IGNORE_FILES = (".mlflowignore", ".amlignore", ".gitignore")
ALWAYS_OUT = {
    ".git", ".hg", ".svn", "__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".DS_Store",
    "mlruns", "mlartifacts", "mlflow.db", "mlflow.db-journal", "mlflow.db-wal", "mlflow.db-shm", "node_modules",
}  # fmt: skip
ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
SECRET_NAMES = re.compile(
    r"\.env(\..+)?|\.netrc|\.pypirc|\.git-credentials|id_(rsa|dsa|ecdsa|ed25519)|.*\.(key|p12|pfx|kubeconfig)|kubeconfig", re.I
)
NOT_SECRET = re.compile(r"\.env\.(example|sample|template|dist)", re.I)
SECRET_CONTENT = re.compile(rb"^-----BEGIN [A-Z ]*PRIVATE KEY-----|^[\s-]*client-key-data:|^\s*aws_secret_access_key\s*=", re.M)
SEEN_BYTES = 4096


@dataclass(frozen=True)
class Snapshot:
    """An archive on disk (`path`, a tar.gz of `size_bytes`) and its hash; `project` and `inputs` are its top folders.

    `secrets` were left out because they look like secrets.
    """

    path: Path
    sha256: str
    size_bytes: int
    secrets: tuple[str, ...]

    def read(self) -> bytes:
        return self.path.read_bytes()

    def discard(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)


@dataclass(frozen=True)
class Listing:
    """What would travel: archive names to local paths, sorted by name, and what was left out as secret."""

    members: Mapping[str, Path]
    secrets: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(path.lstat().st_size for path in self.members.values())


def project_files(directory: Path) -> Listing:
    """The files of the project in `directory`. Raises SnapshotError on a link out of it."""
    secrets: list[str] = []
    members = dict(sorted(_walk(directory, secrets)))
    return Listing(members, tuple(sorted(secrets)))


def take(listing: Listing, inputs: Mapping[str, Path]) -> Snapshot:
    """Archive the project's files below `project/`, and each of `inputs` (a file or folder) at its archive name.

    Raises SnapshotError when there is nothing to archive or the limits are passed.
    """
    if not listing.members:
        raise SnapshotError("the project has no files that may travel: see its ignore files (.mlflowignore, .amlignore, .gitignore)")
    members = {f"project/{name}": path for name, path in listing.members.items()}
    for name, path in inputs.items():
        members.update(_input_files(name, path))
    members = dict(sorted(members.items()))
    _check_limits(members)
    path, digest = _archive(members)
    return Snapshot(path, digest, path.stat().st_size, listing.secrets)


def _walk(root: Path, secrets: list[str]) -> Iterator[tuple[str, Path]]:
    from pathspec import GitIgnoreSpec

    ignore_file = next((name for name in IGNORE_FILES if (root / name).is_file()), None)

    def visit(folder: Path, prefix: str, specs: list):
        if ignore_file and (folder / ignore_file).is_file():
            specs = [*specs, (prefix, GitIgnoreSpec.from_lines((folder / ignore_file).read_text(errors="replace").splitlines()))]
        with os.scandir(folder) as scan:
            entries = list(scan)
        for entry in entries:
            name = prefix + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            verdict = _verdict(specs, name + "/" if is_folder else name)
            if verdict is True or (verdict is None and entry.name in ALWAYS_OUT):
                continue
            path = Path(entry.path)
            if is_folder:
                if not any((path / mark).exists() for mark in ENVIRONMENT_MARKS):
                    yield from visit(path, name + "/", specs)
            elif entry.is_symlink():
                _check_link(path, root)
                yield name, path
            elif entry.is_file():
                if verdict is None and _looks_secret(path):
                    secrets.append(name)
                else:
                    yield name, path

    yield from visit(root, "", [])


def _verdict(specs, name) -> bool | None:
    """True: ignored; False: taken back in by a `!` pattern; None: no pattern speaks of it. The deepest file decides."""
    for prefix, spec in reversed(specs):
        result = spec.check_file(name[len(prefix) :])
        if result.include is not None:
            return result.include
    return None


def _check_link(path: Path, root: Path) -> None:
    target = os.path.realpath(path)
    if os.path.isabs(os.readlink(path)) or not Path(target).is_relative_to(os.path.realpath(root)):
        raise SnapshotError(
            f"{path.relative_to(root)}: is a link out of the project (to {os.readlink(path)}): "
            "copy what it points to, or name it in .mlflowignore"
        )


def _looks_secret(path: Path) -> bool:
    if NOT_SECRET.fullmatch(path.name):
        return False
    if SECRET_NAMES.fullmatch(path.name):
        return True
    try:
        with open(path, "rb") as file:
            return bool(SECRET_CONTENT.search(file.read(SEEN_BYTES)))
    except OSError:
        return False  # the archive will say why it cannot be read


def _input_files(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_dir():
        for member, file in _walk(path, []):
            yield f"{name}/{member}", file
    else:
        yield name, path


def _check_limits(members: Mapping[str, Path]) -> None:
    sizes = {name: path.lstat().st_size for name, path in members.items()}
    total = sum(sizes.values())
    if total <= MAX_BYTES and len(sizes) <= MAX_FILES:
        return
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:5]
    listed = ", ".join(f"{name.removeprefix('project/')} ({sizes[name] / 1e6:.1f} MB)" for name in largest)
    raise SnapshotError(
        f"the project's files are too large to travel: {total / 1e6:.0f} MB in {len(sizes)} files, "
        f"the limit is {MAX_BYTES / 1e6:.0f} MB in {MAX_FILES}; largest: {listed}; name what is not needed in .mlflowignore"
    )


def _archive(members: Mapping[str, Path]) -> tuple[Path, str]:
    path = Path(tempfile.mkdtemp(prefix="mlflow-compute-")) / FILE_NAME
    try:
        with open(path, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as zipped:
            with tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for member, file in members.items():
                    _add(archive, member, file)
        with open(path, "rb") as file:
            return path, hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)
    except OSError as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise SnapshotError(f"{error.filename or path}: cannot be read: {error.strerror}") from None


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    info = tarfile.TarInfo(name)
    if path.is_symlink():
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        archive.addfile(info)
        return
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        info.mode = 0o755 if status.st_mode & 0o100 else 0o644
        info.size = status.st_size
        archive.addfile(info, file)


def _digest(file: io.BufferedReader) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()
