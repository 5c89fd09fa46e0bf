"""What is packed for a pod, where its parameters find it, and what the user is told about it."""

import json
import os
import tarfile
import tempfile

import pytest

from mlflow_backend.errors import ProjectError, SnapshotError
from mlflow_backend.files.listing import Limits
from mlflow_backend.places.kubernetes.files import pack
from mlflow_backend.request import project as projects
from tests.unit.trees import write

UNPACKED = "/mlflow/work/unpacked"
LIMITS = Limits()


class Lines(list):
    """What a Progress was told."""

    say = list.append


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Pack the project with these parameters: the archive's contents but for MLproject, the
    parameters' values, and the lines that were said.
    """
    for name in ("cwd", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    def call(fields, given=None, root=None, limits=LIMITS):
        root = root or tmp_path / "project"
        write(
            root,
            {
                "MLproject": json.dumps(
                    {"entry_points": {"main": {"parameters": fields, "command": "true"}}}
                )
            },
        )
        lines = Lines()
        with (
            pack(projects.load(str(root), None, "main", given), None, limits, lines) as (
                taken,
                placed,
                downloads,
            ),
            tarfile.open(taken.path) as archive,
        ):
            contents = {
                m.name: archive.extractfile(m).read().decode() if m.isfile() else None
                for m in archive.getmembers()
            }
        assert contents.pop("project/MLproject") and not os.listdir(tmp_path / "tmp")
        return contents, placed, lines, downloads

    return call


def test_a_default_inside_of_the_project_travels_with_it(packed, tmp_path):
    write(tmp_path, {"project/data/a.csv": "1", "project/config.yaml": "2", "cwd/data/other": "3"})
    fields = {
        "data": {"type": "path", "default": "data"},
        "config": {"type": "uri", "default": "file:config.yaml"},
        "all": {"type": "path", "default": "."},
    }
    contents, placed, lines, _ = packed(fields)
    assert contents == {"project/data/a.csv": "1", "project/config.yaml": "2"} and lines == []
    assert placed == {
        "data": f"{UNPACKED}/project/data",
        "config": f"file://{UNPACKED}/project/config.yaml",
        "all": f"{UNPACKED}/project",
    }


def test_a_default_that_ignore_files_leave_out_is_taken_along_without_its_secrets(packed, tmp_path):
    write(
        tmp_path / "project",
        {
            ".gitignore": "/data\n",
            "data/a.csv": "1",
            "data/.env": "2",
            "data/.gitignore": "a.csv\n",
        },
    )
    contents, placed, lines, _ = packed({"data": {"type": "path", "default": "data"}})
    assert contents == {
        "project/.gitignore": "/data\n",
        "inputs/data/data/a.csv": "1",
        "inputs/data/data/.gitignore": "a.csv\n",
    }
    assert placed == {"data": f"{UNPACKED}/inputs/data/data"}
    assert lines == [
        f"parameter 'data': excluded from {tmp_path}/project/data, may be secret: .env",
        "excluded by .gitignore: 3 files, 0.0 kB (data/)",
    ]


def test_what_the_user_names_outside_of_the_project_is_said_with_number_and_size(packed, tmp_path):
    write(
        tmp_path,
        {
            "data/a.csv": "x" * 1500,
            "data/deep/.env": "x" * 500,
            "data/node_modules/b": "",
            "key.pem": "x",
            "id_rsa": "x",
        },
    )
    contents, placed, lines, _ = packed(
        {"data": "path", "one": "path", "key": "uri"},
        {
            "data": f"{tmp_path}/data",
            "one": f"{tmp_path}/key.pem",
            "key": f"file://{tmp_path}/id_rsa",
        },
    )
    assert set(contents) == {
        "inputs/data/data/a.csv", "inputs/data/data/deep/.env", "inputs/data/data/node_modules/b", "inputs/one/key.pem", "inputs/key/id_rsa",
    }  # fmt: skip
    assert placed == {
        "data": f"{UNPACKED}/inputs/data/data", "one": f"{UNPACKED}/inputs/one/key.pem", "key": f"file://{UNPACKED}/inputs/key/id_rsa",
    }  # fmt: skip
    assert lines == [
        (
            f"parameter 'data': {tmp_path}/data travels with the run (3 files, 2.0 kB); may be secret: "
            "deep/.env"
        ),
        f"parameter 'one': {tmp_path}/key.pem travels with the run (1 file, 0.0 kB)",
        f"parameter 'key': {tmp_path}/id_rsa travels with the run (1 file, 0.0 kB); may be secret",
    ]


def test_a_default_outside_of_the_project_is_refused_before_anything_is_packed(packed, tmp_path):
    write(tmp_path, {"secret": "x"})
    with pytest.raises(
        ProjectError, match="is outside of the project: to send it intentionally, pass -P data="
    ):
        packed({"data": {"type": "path", "default": f"{tmp_path}/secret"}})
    write(tmp_path, {"project/data/a": "", "project/.gitignore": "data\n"})
    (tmp_path / "project/data/link").symlink_to(tmp_path / "secret")
    with pytest.raises(
        SnapshotError, match=r"^inputs/data/data/link: is a link out of the project"
    ):
        packed({"data": {"type": "path", "default": "data"}})
    assert not os.listdir(tmp_path / "tmp")


def test_secrets_and_what_ignore_files_name_are_said(packed, tmp_path):
    write(
        tmp_path / "project",
        {".env": "x", "a\x1b.key": "x", ".gitignore": "*.log\n", "x.log": "1234"}
        | {f"{number}.key": "" for number in range(12)},
    )
    contents, _, lines, _ = packed({})
    assert contents == {"project/.gitignore": "*.log\n"}
    assert lines == [
        (
            "excluded, may be secret: .env, 0.key, 1.key, 10.key, 11.key, 2.key, 3.key, 4.key, 5.key, "
            "6.key and 4 more (write !NAME in .mlflowignore to send one)"
        ),
        "excluded by .gitignore: 1 file, 0.0 kB (x.log)",
    ]


def test_a_folder_of_the_project_with_something_left_out_is_taken_along_whole(packed, tmp_path):
    write(
        tmp_path / "project",
        {
            "data/a": "1",
            "data/b.key": "2",
            "data/__pycache__/c": "3",
            "clean/a": "4",
            "clean/__pycache__/c": "5",
        },
    )
    contents, placed, _, _ = packed(
        {"data": "path", "clean": "path"}, {"data": "data", "clean": "clean"}
    )
    assert contents == {
        "project/data/a": "1", "project/clean/a": "4",
        "inputs/data/data/a": "1", "inputs/data/data/b.key": "2", "inputs/data/data/__pycache__/c": "3",
    }  # fmt: skip
    assert placed == {"data": f"{UNPACKED}/inputs/data/data", "clean": f"{UNPACKED}/project/clean"}


def test_a_project_by_a_path_through_a_link_is_packed_as_by_its_own(packed, tmp_path):
    write(tmp_path / "project", {"data/a": "1", "b": "2"})
    (tmp_path / "way").symlink_to("project")
    fields = {"data": {"type": "path", "default": "data"}, "b": {"type": "path", "default": "b"}}
    contents, placed, lines, _ = packed(fields, root=tmp_path / "way")
    assert contents == {"project/data/a": "1", "project/b": "2"} and lines == []
    assert placed == {"data": f"{UNPACKED}/project/data", "b": f"{UNPACKED}/project/b"}


def test_remote_values_are_downloads_and_nothing_of_them_is_packed(packed):
    contents, placed, _, downloads = packed(
        {"data": {"type": "path", "default": "s3://bucket/a/b.csv"}}
    )
    assert contents == {} and placed == {"data": f"{UNPACKED}/inputs/data/b.csv"}
    assert [(item.uri, item.path) for item in downloads] == [
        ("s3://bucket/a/b.csv", f"{UNPACKED}/inputs/data/b.csv")
    ]


def test_an_empty_value_takes_nothing_along(packed, tmp_path):
    write(tmp_path, {"cwd/private/payroll.csv": "x"})
    assert packed({"data": {"type": "path", "default": ""}}) == ({}, {}, [], ())


def test_the_limits_are_the_target_s(packed, tmp_path):
    write(tmp_path / "project", {"a": "1", "b": "2"})
    write(tmp_path, {"data/c": "3"})
    with pytest.raises(
        SnapshotError,
        match=r"in 3 files exceeds the limit of 300\.0 MB in 2 files; .* or set "
        "'snapshot_bytes' and 'snapshot_files'",
    ):
        packed({}, limits=Limits(files=2))
    packed({}, limits=Limits(files=3))
    with pytest.raises(SnapshotError, match=r"in 4 files exceeds the limit of 300\.0 MB in 3"):
        packed({"data": "path"}, {"data": f"{tmp_path}/data"}, limits=Limits(files=3))
