"""The project's archive: what is in it, and that the same files give the same bytes."""

import os
import random
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_backend import snapshot
from mlflow_backend.errors import SnapshotError

NAMES = st.from_regex(r"[a-z][a-z0-9é]{0,5}(/[a-z][a-z0-9]{0,5}){0,2}\.(py|txt)", fullmatch=True)


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def take(root, inputs=None):
    taken = snapshot.take(snapshot.project_files(root), inputs or {})
    try:
        with tarfile.open(taken.path) as archive:
            contents = {m.name: archive.extractfile(m).read() if m.isfile() else m.linkname for m in archive.getmembers()}
    finally:
        taken.discard()
    return taken, contents


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(files=st.dictionaries(NAMES, st.binary(max_size=50), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_same_files_give_the_same_hash_whatever_their_order_time_or_permissions(tmp_path_factory, files, seed):
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


@pytest.mark.parametrize("change", ["content", "name", "executable"])
def test_a_change_that_counts_changes_the_hash(tmp_path, change):
    write(tmp_path, {"train.py": "print(1)"})
    before = take(tmp_path)[0].sha256
    if change == "content":
        (tmp_path / "train.py").write_text("print(2)")
    elif change == "name":
        (tmp_path / "train.py").rename(tmp_path / "main.py")
    else:
        (tmp_path / "train.py").chmod(0o755)
    assert take(tmp_path)[0].sha256 != before


def test_mlflowignore_goes_before_amlignore_before_gitignore(tmp_path):
    write(tmp_path, {"a": "", "b": "", "c": "", ".gitignore": "a\n"})
    assert "project/a" not in take(tmp_path)[1]
    write(tmp_path, {".amlignore": "b\n"})
    assert {"project/a", "project/c"} <= set(take(tmp_path)[1]) and "project/b" not in take(tmp_path)[1]
    write(tmp_path, {".mlflowignore": "c\n"})
    assert {"project/a", "project/b"} <= set(take(tmp_path)[1]) and "project/c" not in take(tmp_path)[1]


def test_patterns_are_read_as_git_reads_them_in_every_folder(tmp_path):
    write(tmp_path, {"data/x.csv": "", "data/keep.csv": "", "deep/data/y.csv": "", "deep/z.log": "", "z.log": ""})
    write(tmp_path, {".gitignore": "/data/*\n!/data/keep.csv\n", "deep/.gitignore": "*.log\n"})
    names = {name.removeprefix("project/") for name in take(tmp_path)[1]}
    assert names == {".gitignore", "data/keep.csv", "deep/.gitignore", "deep/data/y.csv", "z.log"}


def test_what_never_belongs_to_a_project_is_left_out(tmp_path):
    write(tmp_path, {"train.py": "", ".git/config": "", "mlruns/0/meta.yaml": "", "mlflow.db": "", "__pycache__/x.pyc": ""})
    write(tmp_path, {"env/pyvenv.cfg": "", "env/bin/python": "", "conda/conda-meta/history": "", "conda/lib/x": ""})
    assert set(take(tmp_path)[1]) == {"project/train.py"}


def test_files_that_look_like_secrets_are_left_out_and_named(tmp_path):
    key = "-----BEGIN RSA " + "PRIVATE KEY-----\n"
    write(tmp_path, {"train.py": "", ".env": "A=1", "conf/id_rsa": "", "deploy.txt": key, "cluster.yaml": "users:\n- client-key-data: x\n"})
    write(tmp_path, {".env.example": "A=", "kubeconfig": ""})
    taken, contents = take(tmp_path)
    assert set(contents) == {"project/train.py", "project/.env.example"}
    assert taken.secrets == (".env", "cluster.yaml", "conf/id_rsa", "deploy.txt", "kubeconfig")
    write(tmp_path, {".mlflowignore": "!.env\n"})
    assert "project/.env" in take(tmp_path)[1]


def test_a_link_inside_the_project_travels_and_one_out_of_it_is_refused(tmp_path):
    root = write(tmp_path / "project", {"a.txt": "x"})
    (root / "link").symlink_to("a.txt")
    assert take(root)[1]["project/link"] == "a.txt"
    (root / "out").symlink_to("../elsewhere")
    with pytest.raises(SnapshotError, match="out: is a link out of the project"):
        take(root)
    write(root, {".mlflowignore": "out\n"})
    assert "project/out" not in take(root)[1]


def test_too_many_files_are_refused_with_the_largest_named(tmp_path):
    write(tmp_path, {f"f{number}": "" for number in range(snapshot.MAX_FILES)} | {"big.bin": "x" * 5_000_000})
    with pytest.raises(SnapshotError, match=r"2001 files.*limit is 300 MB in 2000; largest: big.bin \(5.0 MB\)"):
        take(tmp_path)


def test_too_many_bytes_are_refused_without_reading_them(tmp_path):
    write(tmp_path, {"train.py": ""})
    with open(tmp_path / "huge.bin", "wb") as file:
        file.truncate(snapshot.MAX_BYTES + 1)
    with pytest.raises(SnapshotError, match=r"huge.bin \(300.0 MB\)"):
        take(tmp_path)


def test_a_project_without_files_is_refused(tmp_path):
    write(tmp_path, {".git/config": ""})
    with pytest.raises(SnapshotError, match="no files"):
        take(tmp_path)


def test_inputs_travel_beside_the_project_under_the_same_limits(tmp_path):
    root = write(tmp_path / "project", {"train.py": ""})
    write(tmp_path / "data", {"a.csv": "1", "deep/b.csv": "2"})
    contents = take(root, {"inputs/data/data": tmp_path / "data", "inputs/one/a.csv": tmp_path / "data/a.csv"})[1]
    assert {name: contents[name] for name in contents if name.startswith("inputs")} == {
        "inputs/data/data/a.csv": b"1",
        "inputs/data/data/deep/b.csv": b"2",
        "inputs/one/a.csv": b"1",
    }
    with open(tmp_path / "data" / "huge", "wb") as file:
        file.truncate(snapshot.MAX_BYTES)
    with pytest.raises(SnapshotError, match="inputs/data/data/huge"):
        take(root, {"inputs/data/data": tmp_path / "data", "inputs/x": root / "train.py"} | {"inputs/y/a": tmp_path / "data/a.csv"})
