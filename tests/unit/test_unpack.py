"""An unpacked archive equals its source, and nothing is ever written outside its folder."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlflow_backend.files import snapshot
from mlflow_backend.files.code_files import project_files
from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.run import unpack as module
from mlflow_runner.run.unpack import leads_out, unpack


def archive_of(tmp_path, *members, name="archive.tar.gz"):
    """Path and hash of an archive with these members: TarInfos with their contents."""
    path = tmp_path / name
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def file(name):
    return member(name), b"x"


def folder(name):
    return member(name, tarfile.DIRTYPE), b""


def link(name, target):
    return member(name, tarfile.SYMTYPE, target), b""


def refused(path, sha256, directory):
    with pytest.raises(RunnerError) as error:
        unpack(path, sha256, str(directory))
    assert error.value.cause == "SnapshotError"
    return str(error.value)


def test_a_snapshot_comes_out_as_it_went_in(tmp_path):
    project = tmp_path / "project"
    (project / "deep").mkdir(parents=True)
    (project / "empty/folder").mkdir(parents=True)
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "deep" / "é.bin").write_bytes(bytes(range(256)))
    (project / "link").symlink_to("deep/é.bin")
    (project / "deep" / "up").symlink_to("../run.sh")
    taken = snapshot.take(project_files(project), {})
    unpack(str(taken.path), taken.sha256, str(tmp_path / "out"))
    unpack(str(taken.path), taken.sha256, str(tmp_path / "out"))
    taken.discard()
    out = tmp_path / "out" / "project"
    assert (out / "run.sh").stat().st_mode & 0o111
    assert (out / "link").read_bytes() == bytes(range(256)) and (
        out / "deep/up"
    ).read_text() == "#!/bin/sh\n"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*")) == [
        "deep", "deep/up", "deep/é.bin", "empty", "empty/folder", "link", "run.sh",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "members",
    [
        [file("../out.txt")],
        [file("/etc/out.txt")],
        [file("a/../../out.txt")],
        [file("a/../b")],
        [file("./a")],
        [file("a//b")],
        [file(".")],
        [folder(".")],
        [folder("a"), file("a")],
        [file("a"), folder("a")],
        [file("a"), file("a")],
        [file("a"), file("a/b")],
        [file("a/b"), file("a")],
        [link("link", "/etc")],
        [link("a/link", "../../x")],
        [link("link", "")],
        [link("link", "."), file("link/x")],
        [link("link", "d"), folder("d"), folder("link/x")],
        [folder("p"), link("p/q", ".."), link("l", "p/q/.."), file("l/evil")],
        [folder("p"), link("p/q", ".."), link("l", "p/q/..")],
        [link("l", "p/q/.."), link("p/q", "..")],
        [link("a", "b"), link("b", "a")],
        [link("a", "a")],
        [(member("hard", tarfile.LNKTYPE, "/etc/passwd"), b"")],
        [(member("fifo", tarfile.FIFOTYPE), b"")],
        [(member("device", tarfile.CHRTYPE), b"")],
        [(member("sparse", tarfile.GNUTYPE_SPARSE), b"")],
        [(member("contiguous", tarfile.CONTTYPE), b"x")],
    ],
)
def test_a_member_that_could_get_out_is_refused_and_nothing_is_written(tmp_path, members):
    path, sha256 = archive_of(tmp_path, file("fine.txt"), *members)
    refused(path, sha256, tmp_path / "out")
    assert [item.name for item in tmp_path.iterdir()] == ["archive.tar.gz"]


def test_a_member_without_a_name_is_refused(tmp_path):
    path, sha256 = archive_of(tmp_path, file("fine.txt"), (member("x"), b""), (member(""), b"x"))
    assert (
        "an unsafe name" in refused(path, sha256, tmp_path / "out")
        and not (tmp_path / "out").exists()
    )


NAMES = st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=4).map("/".join)
MEMBERS = st.one_of(
    st.builds(file, NAMES),
    st.builds(folder, NAMES),
    st.builds(link, NAMES, NAMES),
    st.builds(link, NAMES, NAMES.map("/{}".format)),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MEMBERS, max_size=6))
@example([folder("a"), link("a/b", ".."), link("c", "a/b/.."), file("c/a")])
def test_whatever_an_archive_holds_nothing_lies_or_points_outside(tmp_path_factory, members):
    place = tmp_path_factory.mktemp("place")
    root = place / "way" / "out"
    path, sha256 = archive_of(place, *members)
    cause = None
    try:
        unpack(path, sha256, str(root))
    except RunnerError as error:
        cause = error.cause
    assert cause in (None, "SnapshotError")
    assert {item.name for item in place.iterdir()} <= {"archive.tar.gz", "way"}
    assert not (place / "way").exists() or [item.name for item in (place / "way").iterdir()] == [
        "out"
    ]
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            real = os.path.realpath(os.path.join(folder, name))
            assert real == str(root) or real.startswith(f"{root}/")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(links=st.dictionaries(NAMES.filter(lambda name: "." not in name), NAMES, max_size=4))
@example({"a/b": "..", "c": "a/b/.."})
def test_a_link_is_followed_as_the_system_follows_it(tmp_path_factory, links):
    place = tmp_path_factory.mktemp("place")
    root = place / "1" / "2" / "3" / "4" / "5" / "root"
    root.mkdir(parents=True)
    made = {}
    for name, target in links.items():
        parents = [
            root.joinpath(*name.split("/")[:count]) for count in range(1, name.count("/") + 1)
        ]
        if not os.path.lexists(root / name) and not any(parent.is_symlink() for parent in parents):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(target)
            made[name] = target
    for name in made:
        real = os.path.realpath(root / name)
        if not (real == str(root) or real.startswith(f"{root}/")):
            assert leads_out(name, made)


def test_what_stands_in_the_way_is_not_followed(tmp_path):
    """A link that another process creates in the folder meanwhile."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    path, sha256 = archive_of(tmp_path, file("a/kept"), file("b"), folder("c"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(outside)
    refused(path, sha256, out)
    (out / "a").unlink()
    (out / "b").symlink_to(outside / "kept")
    unpack(path, sha256, str(out))
    (out / "c").rmdir()
    (out / "c").symlink_to(outside)
    refused(path, sha256, out)
    assert (
        (outside / "kept").read_text() == "kept"
        and (out / "b").read_text() == "x"
        and not (out / "b").is_symlink()
    )


def test_bytes_that_are_not_the_ones_submitted_are_refused(tmp_path):
    path, sha256 = archive_of(tmp_path, file("a"))
    assert refused(path, "0" * 64, tmp_path / "out") == (
        f"The snapshot's sha256 is {sha256}, expected {'0' * 64}: submit again."
    )
    assert not (tmp_path / "out").exists()


def test_the_bytes_that_were_hashed_are_the_ones_that_are_unpacked(tmp_path, monkeypatch):
    path, sha256 = archive_of(tmp_path, file("honest"))
    other, _ = archive_of(tmp_path, file("other"), name="other.tar.gz")
    hashed = module._sha256

    def swap(opened):
        found = hashed(opened)
        os.replace(other, path)  # after the check, before the use
        return found

    monkeypatch.setattr(module, "_sha256", swap)
    unpack(path, sha256, str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["honest"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1000],
        lambda data: b"x" + data[1:],
        lambda data: data[:30] + b"?" * 8 + data[38:],
        lambda _: b"",
    ],
)
def test_a_damaged_archive_is_a_snapshot_error(tmp_path, damage):
    path, _ = archive_of(tmp_path, file("a"), (member("b"), os.urandom(2000)))
    data = damage(Path(path).read_bytes())
    Path(path).write_bytes(data)
    refused(path, hashlib.sha256(data).hexdigest(), tmp_path / "out")


def test_a_missing_archive_is_a_snapshot_error(tmp_path):
    assert refused(str(tmp_path / "none"), "0" * 64, tmp_path / "out").startswith(
        "The snapshot could not be unpacked: "
    )


def test_too_many_members_and_too_many_bytes_are_refused(tmp_path, monkeypatch):
    path, sha256 = archive_of(tmp_path, *(file(f"f{number}") for number in range(5)))
    monkeypatch.setattr(module, "MOST_MEMBERS", 4)
    assert "more than 4 members" in refused(path, sha256, tmp_path / "out")
    monkeypatch.setattr(module, "MOST_MEMBERS", 5)
    monkeypatch.setattr(module, "MOST_BYTES", 4)
    assert (
        "or 4 bytes" in refused(path, sha256, tmp_path / "out") and not (tmp_path / "out").exists()
    )


def test_a_deep_member_is_unpacked_without_recursion(tmp_path):
    from mlflow_backend import scratch

    name = "/".join(["d"] * 1_500)
    path, sha256 = archive_of(tmp_path, file(name))
    with scratch.folder(tmp_path) as out:
        unpack(path, sha256, str(out))
        here = os.open(out, os.O_RDONLY)
        for part in name.split("/")[:-1]:
            below = os.open(part, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        assert os.listdir(here) == ["d"]
        os.close(here)
