"""The archive of a run: the same files give the same bytes, and files that change meanwhile do no
harm.
"""

import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_backend.errors import SnapshotError
from mlflow_backend.files import snapshot
from mlflow_backend.files.code_files import project_files
from mlflow_backend.files.input_files import input_files
from mlflow_backend.files.listing import Limits
from tests.unit.trees import without_rights, write

NAMES = st.from_regex(r"[a-z][a-z0-9é]{0,5}(/[a-z][a-z0-9]{0,5}){0,2}\.(py|txt)", fullmatch=True)
LARGE_BYTES = 40_000_000


def contents_of(taken):
    try:
        with tarfile.open(taken.path) as archive:
            return {
                m.name: archive.extractfile(m).read() if m.isfile() else m.linkname
                for m in archive.getmembers()
            }
    finally:
        taken.discard()


def take(root, inputs=None):
    taken = snapshot.take(project_files(root), inputs or {})
    return taken, contents_of(taken)


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    files=st.dictionaries(NAMES, st.binary(max_size=50), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_same_files_give_the_same_hash_whatever_their_order_time_or_permissions(
    tmp_path_factory, files, seed
):
    hashes = set()
    for attempt in range(2):
        root = tmp_path_factory.mktemp("project")
        names = sorted(files)
        random.Random(seed + attempt).shuffle(names)
        write(root, {name: files[name] for name in names})
        for name in names:
            os.utime(root / name, (attempt * 1000, attempt * 1000))
            (root / name).chmod(0o640 if attempt else 0o666)
        hashes.add(take(root)[0].sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize("change", ["content", "name", "executable", "empty folder"])
def test_a_change_that_counts_changes_the_hash(tmp_path, change):
    write(tmp_path, {"train.py": "print(1)"})
    before = take(tmp_path)[0].sha256
    if change == "content":
        (tmp_path / "train.py").write_text("print(2)")
    elif change == "name":
        (tmp_path / "train.py").rename(tmp_path / "main.py")
    elif change == "executable":
        (tmp_path / "train.py").chmod(0o755)
    else:
        (tmp_path / "logs").mkdir()
    assert take(tmp_path)[0].sha256 != before


def test_the_hash_is_that_of_the_archive(tmp_path):
    import hashlib

    taken = snapshot.take(project_files(write(tmp_path, {"train.py": "x"})), {})
    assert (taken.sha256, taken.size_bytes) == (
        hashlib.sha256(taken.read()).hexdigest(),
        len(taken.read()),
    )
    taken.discard()


def test_inputs_travel_beside_the_project_under_the_same_limits(tmp_path):
    root = write(tmp_path / "project", {"train.py": ""})
    write(tmp_path / "data", {"a.csv": "1", "deep/b.csv": "2"})
    inputs = {
        **input_files(tmp_path / "data", "inputs/data/data").members,
        **input_files(tmp_path / "data/a.csv", "inputs/one/a.csv").members,
    }
    assert take(root, inputs)[1] == {
        "project/train.py": b"",
        "inputs/data/data/a.csv": b"1",
        "inputs/data/data/deep/b.csv": b"2",
        "inputs/one/a.csv": b"1",
    }
    with pytest.raises(
        SnapshotError,
        match=r"in 4 files exceeds the limit of 300.0 MB in 3 files; "
        r"largest: inputs/data/data/a.csv \(0.0 kB\)",
    ):
        snapshot.take(project_files(root), inputs, Limits(files=3))
    with pytest.raises(
        SnapshotError, match=r"0.0 kB in 4 files exceeds the limit of 0.0 kB in 2000"
    ):
        snapshot.take(project_files(root), inputs, Limits(bytes=2))


def test_what_vanishes_before_it_is_packed_is_left_out(tmp_path):
    write(tmp_path, {"train.py": "x", "checkpoint.tmp": "x", "logs/a": "x"})
    (tmp_path / "link").symlink_to("train.py")
    listing = project_files(tmp_path)
    for name in ("checkpoint.tmp", "logs/a", "link"):
        (tmp_path / name).unlink()
    assert contents_of(snapshot.take(listing, {})) == {"project/train.py": b"x"}


def test_what_another_thing_has_taken_the_place_of_is_left_out(tmp_path):
    root = write(tmp_path / "project", {"a": "x", "b": "x", "c": "x", "train.py": "x"})
    (tmp_path / "secret").write_text("secret")
    listing = project_files(root)
    for name in ("a", "b"):
        (root / name).unlink()
    os.mkfifo(root / "a")
    (root / "b").mkdir()
    assert contents_of(snapshot.take(listing, {})) == {"project/c": b"x", "project/train.py": b"x"}
    (root / "c").unlink()
    (root / "c").symlink_to(tmp_path / "secret")
    assert contents_of(snapshot.take(listing, {})) == {"project/train.py": b"x"}


def test_a_file_that_was_asked_for_must_be_there(tmp_path):
    root = write(tmp_path, {"train.py": "x", "data.csv": "x"})
    inputs = input_files(root / "data.csv", "inputs/data/data.csv").members
    (root / "data.csv").unlink()
    with pytest.raises(SnapshotError, match=r"data\.csv: no longer exists"):
        snapshot.take(project_files(root), inputs)


def test_what_cannot_be_read_is_named_in_one_line():
    with without_rights() as root:
        write(root, {"train.py": "x", "pgdata/pyvenv": "x"})
        (root / "pgdata").chmod(0o000)
        with pytest.raises(SnapshotError) as error:
            project_files(root)
        (root / "pgdata").chmod(0o700)
        assert str(error.value) == (
            "pgdata/: cannot be read: Permission denied: exclude it in .mlflowignore"
        )
        (root / "train.py").chmod(0o000)
        with pytest.raises(
            SnapshotError,
            match=r"^train\.py: cannot be read: Permission denied: exclude it in \.mlflowignore$",
        ):
            project_files(root)
        write(root, {".mlflowignore": "train.py\n"})
        assert set(project_files(root).members) == {".mlflowignore", "pgdata/pyvenv"}
        (root / "pgdata/pyvenv").chmod(0o000)
        with pytest.raises(
            SnapshotError,
            match="cannot be read: Permission denied: make it "
            "readable, or pass another path with -P",
        ):
            input_files(root / "pgdata", "inputs/x/pgdata")


def large(root):
    """A file that takes a while to pack."""
    (root / "large.bin").write_bytes(random.Random(1).randbytes(LARGE_BYTES))


def packing(folder):
    """Wait until the archive in `folder` has begun to grow."""
    deadline = time.monotonic() + 100
    while not any(
        path.stat().st_size > 1_000_000
        for path in Path(folder).glob("mlflow-compute-*/snapshot.tar.gz")
    ):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def change_while_packed(root, tmp_path, monkeypatch, change):
    """The snapshot of the project, which `change` was done to once the packing had begun."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    def run():
        packing(place)
        change()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return snapshot.take(project_files(root), {})
    finally:
        thread.join()


def test_a_file_that_becomes_smaller_while_it_is_packed_is_named(tmp_path, monkeypatch):
    root = write(tmp_path / "project", {"train.py": "x"})
    large(root)
    with pytest.raises(SnapshotError) as error:
        change_while_packed(
            root, tmp_path, monkeypatch, lambda: os.truncate(root / "large.bin", 10)
        )
    assert str(error.value) == (
        "large.bin: became smaller while it was packed: submit again when no program writes to it, "
        "or exclude it in .mlflowignore"
    )
    assert not list((tmp_path / "tmp").iterdir())


def test_of_a_file_that_grows_while_it_is_packed_the_first_part_travels_and_it_is_named(
    tmp_path, monkeypatch
):
    root = write(tmp_path / "project", {"train.py": "x"})
    large(root)
    before = (root / "large.bin").read_bytes()

    def grow():
        with open(root / "large.bin", "ab") as file:
            file.write(b"more")

    taken = change_while_packed(root, tmp_path, monkeypatch, grow)
    assert taken.changed == ("project/large.bin",)
    assert contents_of(taken) == {"project/large.bin": before, "project/train.py": b"x"}


def test_an_archive_that_cannot_be_written_says_where(tmp_path, monkeypatch):
    write(tmp_path, {"train.py": "x"})
    listing = project_files(tmp_path)
    small = subprocess.run(
        [sys.executable, "-c", SMALL_FILES.format(root=tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert (
        "the archive cannot be written: File too large: free some disk space, or set TMPDIR"
        in small.stdout
    ), small.stderr
    assert listing.members.keys() == {"train.py"} and [
        path.name for path in tmp_path.iterdir()
    ] == ["train.py"]


SMALL_FILES = """
import resource, signal
from pathlib import Path
from mlflow_backend.files import snapshot
from mlflow_backend.errors import SnapshotError
from mlflow_backend.files.code_files import project_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    snapshot.take(project_files(Path({root!r})), {{}})
except SnapshotError as error:
    print(error)
""".replace("{root!r}", "'{root}'")

PACK = """
import sys
from pathlib import Path
from mlflow_backend import scratch
from mlflow_backend.files import snapshot
from mlflow_backend.files.code_files import project_files
scratch.end_in_order()
snapshot.take(project_files(Path(sys.argv[1])), {})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_is_stopped_while_it_packs_leaves_no_folder(tmp_path, number):
    root = write(tmp_path / "project", {"train.py": "x"})
    large(root)
    place = tmp_path / "tmp"
    place.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", PACK, str(root)],
        env={**os.environ, "TMPDIR": str(place)},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    packing(place)
    process.send_signal(number)
    assert process.wait() != 0
    assert not list(place.iterdir())
