"""Unpacking: what comes out is what went in, and nothing gets out of its folder."""

import hashlib
import io
import tarfile

import pytest

from mlflow_backend import snapshot
from mlflow_runner.errors import RunnerError
from mlflow_runner.unpack import unpack


def archive_of(tmp_path, *members):
    """A tar.gz of (TarInfo, content) pairs, and its hash."""
    path = tmp_path / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_a_snapshot_comes_out_as_it_went_in(tmp_path):
    project = tmp_path / "project"
    (project / "deep").mkdir(parents=True)
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "deep" / "é.bin").write_bytes(bytes(range(256)))
    (project / "link").symlink_to("deep/é.bin")
    taken = snapshot.take(snapshot.project_files(project), {})
    unpack(str(taken.path), taken.sha256, str(tmp_path / "out"))
    taken.discard()
    out = tmp_path / "out" / "project"
    assert (out / "run.sh").stat().st_mode & 0o111
    assert (out / "link").read_bytes() == bytes(range(256))
    assert sorted(path.name for path in out.rglob("*")) == ["deep", "link", "run.sh", "é.bin"]


@pytest.mark.parametrize(
    "members",
    [
        [(member("../out.txt"), b"x")],
        [(member("/etc/out.txt"), b"x")],
        [(member("a/../../out.txt"), b"x")],
        [(member("link", tarfile.SYMTYPE, "/etc"), b"")],
        [(member("a/link", tarfile.SYMTYPE, "../../x"), b"")],
        [(member("link", tarfile.SYMTYPE, "."), b""), (member("link/x"), b"y")],
        [(member("hard", tarfile.LNKTYPE, "/etc/passwd"), b"")],
        [(member("fifo", tarfile.FIFOTYPE), b"")],
    ],
)
def test_a_member_that_could_get_out_is_refused_and_nothing_is_written(tmp_path, members):
    path, sha256 = archive_of(tmp_path, (member("fine.txt"), b"x"), *members)
    with pytest.raises(RunnerError) as error:
        unpack(path, sha256, str(tmp_path / "out"))
    assert error.value.cause == "SnapshotError"
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.txt").exists()


def test_bytes_that_are_not_the_ones_submitted_are_refused(tmp_path):
    path, _ = archive_of(tmp_path, (member("a"), b"x"))
    with pytest.raises(RunnerError, match="sha256"):
        unpack(path, "0" * 64, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
