"""Which files of a parameter's value travel: all of them."""

import os

import pytest

from mlflow_backend.errors import SnapshotError
from mlflow_backend.files.input_files import input_files
from mlflow_backend.files.listing import Limits
from tests.unit.trees import write


def listed(path, **keywords):
    listing = input_files(path, "in", **keywords)
    return {name: member.kind for name, member in listing.members.items()}, listing.secrets


def test_a_folder_takes_everything_along_whatever_ignore_files_say(tmp_path):
    write(
        tmp_path,
        {
            ".gitignore": "/data.csv\n",
            "data.csv": "x",
            "node_modules/a": "",
            "mlruns/0": "",
            ".git/config": "",
            ".venv/pyvenv.cfg": "",
        },
    )
    files = {
        f"in/{name}": "file"
        for name in (
            ".gitignore",
            "data.csv",
            "node_modules/a",
            "mlruns/0",
            ".git/config",
            ".venv/pyvenv.cfg",
        )
    }
    assert listed(tmp_path) == (files, ())


def test_what_looks_like_a_secret_travels_and_is_named(tmp_path):
    write(tmp_path, {"a.key": "x", "deep/.env": "x", "b": ""})
    assert listed(tmp_path) == (
        {"in/a.key": "file", "in/b": "file", "in/deep/.env": "file"},
        ("in/a.key", "in/deep/.env"),
    )
    assert listed(tmp_path / "a.key") == ({"in": "file"}, ("in",))


def test_a_place_of_secrets_is_known_by_the_folders_around_it(tmp_path):
    write(tmp_path, {"home/.aws/config": "", "home/.kube/config": "", "home/x/config": ""})
    assert listed(tmp_path / "home/.aws")[1] == ("in/config",) and listed(
        tmp_path / "home/.kube/config"
    )[1] == ("in",)
    assert listed(tmp_path / "home/x")[1] == ()
    assert listed(tmp_path / "home/.aws", within=tmp_path / "home/.aws")[1] == ()


def test_links_are_followed_to_files_and_folders(tmp_path):
    write(tmp_path, {"blobs/abc": "content", "more/x": "1", "snapshot/plain": ""})
    (tmp_path / "snapshot/model.bin").symlink_to("../blobs/abc")
    (tmp_path / "snapshot/again").symlink_to("model.bin")
    (tmp_path / "snapshot/more").symlink_to(tmp_path / "more")
    (tmp_path / "snapshot/nothing").symlink_to("missing")
    listing = input_files(tmp_path / "snapshot", "in")
    assert {name: (member.kind, member.size_bytes) for name, member in listing.members.items()} == {
        "in/again": ("file", 7),
        "in/model.bin": ("file", 7),
        "in/more/x": ("file", 1),
        "in/plain": ("file", 0),
    }
    (tmp_path / "way").symlink_to("snapshot/model.bin")
    assert listed(tmp_path / "way")[0] == {"in": "file"}


def test_empty_folders_are_kept_also_the_one_that_is_named(tmp_path):
    (tmp_path / "empty/a/b").mkdir(parents=True)
    assert listed(tmp_path / "empty/a/b")[0] == {"in": "folder"}
    assert listed(tmp_path / "empty")[0] == {"in/a/b": "folder"}


def test_a_link_in_a_circle_is_named(tmp_path):
    write(tmp_path, {"data/deep/x": ""})
    (tmp_path / "data/deep/up").symlink_to("..")
    with pytest.raises(
        SnapshotError,
        match=r"^in/deep/up: is a link to a folder that contains it: remove the link$",
    ):
        input_files(tmp_path / "data", "in")


def test_links_that_multiply_end_at_the_limit(tmp_path):
    for level in range(30):
        (tmp_path / f"d{level}").mkdir()
        for name in "ab":
            (tmp_path / f"d{level}" / name).symlink_to(f"../d{level + 1}")
    (tmp_path / "d30").mkdir()
    with pytest.raises(SnapshotError, match="has more than 500 files and folders"):
        input_files(tmp_path / "d0", "in", Limits(files=10))


def test_what_is_no_file_is_refused_where_it_is_named_and_passed_over_elsewhere(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SnapshotError, match=r"pipe: is neither a file nor a folder$"):
        input_files(tmp_path / "pipe", "in")
    with pytest.raises(SnapshotError, match=r"missing: there is no such file or folder$"):
        input_files(tmp_path / "missing", "in")
    assert listed(tmp_path)[0] == {"in": "folder"}


def test_what_a_project_names_itself_stays_inside_of_it_and_takes_no_secrets(tmp_path):
    root = write(tmp_path / "project", {"data/a": "", "data/.env": "", "blobs/b": ""})
    (root / "data/b").symlink_to("../blobs/b")
    assert listed(root / "data", within=root) == ({"in/a": "file", "in/b": "file"}, ("in/.env",))
    write(tmp_path, {"outside": ""})
    for target in (tmp_path / "outside", "../../outside", tmp_path / "missing", "/etc"):
        (root / "data/out").symlink_to(target)
        with pytest.raises(SnapshotError, match=r"^in/out: is a link out of the project"):
            input_files(root / "data", "in", within=root)
        assert "in/a" in input_files(root / "data", "in", Limits(files=100_000)).members
        (root / "data/out").unlink()
