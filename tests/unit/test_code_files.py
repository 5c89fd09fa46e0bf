"""Which files of a project travel."""

import os
import subprocess

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlflow_backend import scratch
from mlflow_backend.errors import SnapshotError
from mlflow_backend.files import code_files as module
from mlflow_backend.files.code_files import describe_ignored, project_files
from mlflow_backend.files.listing import ENTRIES_PER_FILE, MOST_DEPTH, Limits
from tests.unit.trees import write

TRAIN = {"train.py": ""}


def names(root, limits=Limits()):  # noqa: B008
    return set(project_files(root, limits).members)


def test_mlflowignore_goes_before_amlignore_before_gitignore(tmp_path):
    write(tmp_path, {"a": "", "b": "", "c": "", ".gitignore": "a\n"})
    assert names(tmp_path) == {"b", "c", ".gitignore"}
    write(tmp_path, {".amlignore": "b\n"})
    assert names(tmp_path) == {"a", "c", ".gitignore", ".amlignore"}
    write(tmp_path, {".mlflowignore": "c\n"})
    assert names(tmp_path) == {"a", "b", ".gitignore", ".amlignore", ".mlflowignore"}


def test_patterns_are_read_as_git_reads_them_in_every_folder(tmp_path):
    write(
        tmp_path,
        {
            "data/x.csv": "",
            "data/keep.csv": "",
            "deep/data/y.csv": "",
            "deep/z.log": "",
            "z.log": "",
        },
    )
    write(tmp_path, {".gitignore": "/data/*\n!/data/keep.csv\n", "deep/.gitignore": "*.log\n"})
    assert names(tmp_path) == {
        ".gitignore",
        "data/keep.csv",
        "deep/.gitignore",
        "deep/data/y.csv",
        "z.log",
    }


def test_an_ignore_file_of_a_folder_counts_though_the_project_s_own_has_none(tmp_path):
    write(
        tmp_path,
        {"train.py": "", "data/.gitignore": "/big.bin\n", "data/big.bin": "", "data/small.csv": ""},
    )
    assert names(tmp_path) == {"train.py", "data/.gitignore", "data/small.csv"}


def test_below_a_mlflowignore_no_gitignore_counts_and_below_a_gitignore_a_mlflowignore_does(
    tmp_path,
):
    write(
        tmp_path / "a",
        {".mlflowignore": "x\n", "deep/.gitignore": "y\n", "deep/x": "", "deep/y": ""},
    )
    assert names(tmp_path / "a") == {".mlflowignore", "deep/.gitignore", "deep/y"}
    write(
        tmp_path / "b",
        {
            ".gitignore": "x\n",
            "deep/.mlflowignore": "!x\ny\n",
            "deep/.gitignore": "z\n",
            "deep/x": "",
            "deep/y": "",
            "deep/z": "",
        },
    )
    assert names(tmp_path / "b") == {
        ".gitignore",
        "deep/.mlflowignore",
        "deep/.gitignore",
        "deep/x",
        "deep/z",
    }


def test_a_repository_that_another_user_made_in_a_folder_above_says_nothing(tmp_path, monkeypatch):
    """As one in /tmp: git refuses it too (CVE-2022-24765)."""
    write(tmp_path, {".git/HEAD": "", ".gitignore": "train.py\n"})
    project = write(tmp_path / "project", {"train.py": "", "other.py": ""})
    assert names(project) == {"other.py"}
    if os.getuid() == 0:
        os.chown(tmp_path / ".git", 65534, -1)
    else:
        own = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
    assert names(project) == {"train.py", "other.py"}


def test_a_project_in_a_folder_of_a_repository_obeys_the_rules_above_it_up_to_the_top(tmp_path):
    write(
        tmp_path,
        {
            ".gitignore": "train.py\n",
            "repo/.git/HEAD": "",
            "repo/.gitignore": "*.ckpt\n/sub/project/data/\n/data\n",
        },
    )
    write(tmp_path, {"repo/sub/.gitignore": "!keep.ckpt\n"})
    project = write(
        tmp_path / "repo/sub/project",
        {"train.py": "", "a.ckpt": "", "keep.ckpt": "", "data/x": "", "deep/data/y": ""},
    )
    assert names(project) == {"train.py", "keep.ckpt", "deep/data/y"}
    write(project, {".mlflowignore": ""})
    assert names(project) == {
        ".mlflowignore",
        "train.py",
        "a.ckpt",
        "keep.ckpt",
        "data/x",
        "deep/data/y",
    }


def test_a_repository_in_the_project_has_rules_of_its_own(tmp_path):
    write(
        tmp_path,
        {
            ".gitignore": "*.bin\n",
            "a.bin": "",
            "module/.git": "gitdir: x",
            "module/.gitignore": "*.log\n",
        },
    )
    write(tmp_path, {"module/a.bin": "", "module/a.log": ""})
    assert names(tmp_path) == {".gitignore", "module/.gitignore", "module/a.bin"}


def test_a_byte_order_mark_spoils_no_pattern(tmp_path):
    write(tmp_path, {**TRAIN, ".gitignore": b"\xef\xbb\xbfx\n", "x": ""})
    assert names(tmp_path) == {".gitignore", "train.py"}


PIECES = st.sampled_from(["a", "b", "*", "?", "**", "a*", "*b", "[ab]", "aa"])
PATTERNS = st.builds(
    lambda negated, start, pieces, end: negated + start + "/".join(pieces) + end,
    st.sampled_from(["", "", "!"]), st.sampled_from(["", "/"]), st.lists(PIECES, min_size=1, max_size=3), st.sampled_from(["", "/"]),
)  # fmt: skip
PARTS = st.sampled_from(["a", "b", "ab", "aa"])
TREES = st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), min_size=1, max_size=8)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    files=TREES,
    ignores=st.dictionaries(
        st.lists(PARTS, max_size=2).map("/".join), st.lists(PATTERNS, max_size=3), max_size=3
    ),
)
@example(["a/a", "a/b", "b"], {"": ["a/*", "!a/b"], "a": ["b"]})
@example(["a"], {"": ["a", "!*"]})
def test_what_travels_is_what_git_would_add(tmp_path_factory, files, ignores):
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    for name in ["train.py", *files]:
        if (
            not any(
                (root / parent).is_file()
                for parent in (name, *map(str, (root / name).relative_to(root).parents))
            )
            and not (root / name).exists()
        ):
            write(root, {name: ""})
    for folder, patterns in ignores.items():
        if (root / folder).is_dir():
            write(
                root,
                {
                    f"{folder}/.gitignore".lstrip("/"): "".join(
                        f"{pattern}\n" for pattern in patterns
                    )
                },
            )
    command = [
        "git",
        "-C",
        str(root),
        "-c",
        "core.excludesFile=/dev/null",
        "ls-files",
        "--others",
        "--exclude-standard",
        "-z",
    ]
    theirs = set(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    ) - {""}
    ours = {
        name
        for name, member in (project_files(root).members.items() if theirs else ())
        if member.kind == "file"
    }
    assert ours == theirs


def test_what_never_belongs_to_a_project_is_left_out(tmp_path):
    write(
        tmp_path,
        {
            "train.py": "",
            ".git/config": "",
            "mlruns/0/meta.yaml": "",
            "mlflow.db": "",
            "__pycache__/x.pyc": "",
        },
    )
    write(
        tmp_path,
        {
            "env/pyvenv.cfg": "",
            "env/bin/python": "",
            "conda/conda-meta/history": "",
            "conda/lib/x": "",
        },
    )
    assert names(tmp_path) == {"train.py"}
    write(tmp_path, {".mlflowignore": "!mlflow.db\n"})
    assert names(tmp_path) == {".mlflowignore", "mlflow.db", "train.py"}


def test_empty_folders_travel_also_those_whose_files_are_left_out(tmp_path):
    write(
        tmp_path,
        {
            **TRAIN,
            ".gitignore": "*.log\n/out\n",
            "logs/a.log": "",
            "full/x": "",
            "runs/mlruns/0": "",
            "out/x": "",
        },
    )
    for folder in ("empty", "deep/a/b", "full/empty", "out/empty"):
        (tmp_path / folder).mkdir(parents=True)
    members = project_files(tmp_path).members
    assert sorted(name for name, member in members.items() if member.kind == "folder") == [
        "deep/a/b",
        "empty",
        "full/empty",
        "logs",
        "runs",
    ]
    assert set(members) == {
        ".gitignore",
        "deep/a/b",
        "empty",
        "full/empty",
        "full/x",
        "logs",
        "runs",
        "train.py",
    }


def test_files_that_look_like_secrets_are_left_out_and_named(tmp_path):
    key = "-----BEGIN RSA " + "PRIVATE KEY-----\n"
    write(
        tmp_path,
        {
            "train.py": "",
            ".env": "A=1",
            "conf/id_rsa": "",
            "deploy.txt": key,
            "cluster.yaml": "users:\n- client-key-data: x\n",
        },
    )
    write(
        tmp_path,
        {
            ".env.example": "A=",
            "kubeconfig": "",
            "late.pem": "x\n" * 10_000 + key,
            ".ssh/known_hosts": "",
        },
    )
    listing = project_files(tmp_path)
    assert set(listing.members) == {"train.py", ".env.example", "conf", ".ssh"}
    assert listing.secrets == (
        ".env",
        ".ssh/known_hosts",
        "cluster.yaml",
        "conf/id_rsa",
        "deploy.txt",
        "kubeconfig",
        "late.pem",
    )
    write(tmp_path, {".mlflowignore": "*\n!*\n!*/\n!.e*\n"})
    assert project_files(tmp_path).secrets == listing.secrets
    write(tmp_path, {".mlflowignore": "!.env\n!/conf/id_rsa\n"})
    assert {".env", "conf/id_rsa"} < names(tmp_path) and "kubeconfig" not in names(tmp_path)


def test_what_ignore_files_leave_out_is_told_with_number_and_size(tmp_path):
    write(
        tmp_path,
        {
            **TRAIN,
            ".gitignore": "data/\n*.log\n.venv\n__pycache__/\n",
            "data/a": "x" * 3000,
            "data/deep/b": "x" * 2000,
        },
    )
    write(
        tmp_path,
        {"a.log": "x" * 500, "deep/b.log": "", ".venv/pyvenv.cfg": "x", "__pycache__/a.pyc": "x"},
    )
    assert describe_ignored(tmp_path, project_files(tmp_path)) == (
        "excluded by .gitignore: 4 files, 5.5 kB (a.log, data/, deep/b.log)"
    )
    write(tmp_path, {"deep/.amlignore": "c\x1b\n", "deep/c\x1b": ""})
    assert describe_ignored(tmp_path, project_files(tmp_path)) == (
        "excluded by .amlignore and .gitignore: 5 files, 5.5 kB (a.log, data/, deep/b.log, and 1 "
        "more)"
    )
    write(tmp_path, {".gitignore": "/deep\n"})
    assert describe_ignored(tmp_path, project_files(tmp_path)) == (
        "excluded by .gitignore: 3 files, 0.0 kB (deep/)"
    )


def test_nothing_is_told_where_ignore_files_leave_nothing_out(tmp_path):
    write(tmp_path, {**TRAIN, ".gitignore": "*.log\n.venv\n", ".venv/pyvenv.cfg": "x"})
    assert describe_ignored(tmp_path, project_files(tmp_path)) is None


def test_the_count_of_what_is_left_out_ends_somewhere(tmp_path):
    write(
        tmp_path,
        {**TRAIN, ".gitignore": "data/\n"}
        | {f"data/{number}": "x" for number in range(module.MOST_COUNTED + 5)},
    )
    assert describe_ignored(tmp_path, project_files(tmp_path)) == (
        "excluded by .gitignore: more than 2000 files, 2.0 kB (data/)"
    )


def test_a_link_inside_the_project_travels_and_one_out_of_it_is_refused(tmp_path):
    root = write(tmp_path / "project", {"a.txt": "x", "deep/b": ""})
    (root / "link").symlink_to("a.txt")
    (root / "deep/up").symlink_to("../a.txt")
    (root / "nothing").symlink_to("missing")
    assert {
        name for name, member in project_files(root).members.items() if member.kind == "link"
    } == {"link", "deep/up", "nothing"}
    (root / "out").symlink_to("../elsewhere")
    with pytest.raises(SnapshotError) as error:
        names(root)
    assert str(error.value) == (
        "out: is a link out of the project (to ../elsewhere): replace it with a copy of its "
        "target, or exclude it in .mlflowignore"
    )
    write(root, {".mlflowignore": "out\n"})
    assert "out" not in names(root)


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../project/a.txt", "deep/../../project/a.txt", "way/../../x", "loop"]
)
def test_a_link_that_only_seems_to_stay_inside_is_refused(tmp_path, target):
    root = write(tmp_path / "project", {"a.txt": "x", "deep/b": ""})
    (root / "way").symlink_to("deep")
    (root / "loop" if target == "loop" else root / "link").symlink_to(target)
    with pytest.raises(SnapshotError, match="is a link out of the project"):
        names(root)


def test_too_many_files_are_refused_with_the_largest_named(tmp_path):
    write(tmp_path, {f"f{number}": "" for number in range(10)} | {"big.bin": "x" * 5_000_000})
    with pytest.raises(SnapshotError) as error:
        project_files(tmp_path, Limits(files=10))
    assert str(error.value) == (
        "5.0 MB in 11 files exceeds the limit of 300.0 MB in 10 files; "
        "largest: big.bin (5.0 MB), f0 (0.0 kB), f1 (0.0 kB), f2 (0.0 kB), f3 (0.0 kB): exclude "
        "what the run does not need in .mlflowignore, or set 'snapshot_bytes' and 'snapshot_files' "
        "in the target"
    )
    assert len(names(tmp_path, Limits(files=11))) == 11


def test_too_many_bytes_are_refused_without_reading_them(tmp_path):
    write(tmp_path, {"train.py": ""})
    with open(tmp_path / "huge.bin", "wb") as file:
        file.truncate(300_000_001)
    with pytest.raises(SnapshotError, match=r"300.0 MB in 2 files.*huge.bin \(300.0 MB\)"):
        names(tmp_path)
    with pytest.raises(SnapshotError, match=r"exceeds the limit of 0.0 kB in 2000 files"):
        project_files(write(tmp_path / "other", {"a": "12345"}), Limits(bytes=4))


def test_empty_folders_count_as_files(tmp_path):
    write(tmp_path, TRAIN)
    for number in range(5):
        (tmp_path / f"d{number}").mkdir()
    with pytest.raises(SnapshotError, match=r"in 6 files exceeds the limit of 300\.0 MB in 5"):
        names(tmp_path, Limits(files=5))


@pytest.mark.parametrize("ignored", ["", "d*\n"])
def test_what_is_looked_at_has_a_limit_too(tmp_path, ignored):
    write(tmp_path, {**TRAIN, ".gitignore": ignored})
    for number in range(2 * ENTRIES_PER_FILE):
        (tmp_path / f"d{number}").mkdir()
    with pytest.raises(
        SnapshotError,
        match="has more than 100 files and folders, excluded ones among them: exclude what ",
    ):
        names(tmp_path, Limits(files=2))


def nest(root, levels):
    here = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        if "d" not in os.listdir(here):
            os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_deep_tree_is_refused_and_a_less_deep_one_travels(tmp_path):
    with scratch.folder(tmp_path) as root:  # pytest cannot remove a deep one
        write(root, TRAIN)
        nest(root, MOST_DEPTH)
        assert names(root) == {"train.py", "/".join(["d"] * MOST_DEPTH)}
        nest(root, 1_500)
        with pytest.raises(SnapshotError) as error:
            names(root)
        assert str(error.value) == (
            f"{'d/' * 40}...: is nested deeper than 200 folders: exclude it in .mlflowignore"
        )
        write(root, {".mlflowignore": "/d\n"})
        assert names(root) == {".mlflowignore", "train.py"}


@pytest.mark.timeout(60)
def test_patterns_cannot_make_a_submit_hang(tmp_path, monkeypatch):
    write(tmp_path, {**TRAIN, ".gitignore": "*a*a*a*a*a*a*b\n", "a" * 120: ""})
    assert names(tmp_path) == {"train.py", ".gitignore", "a" * 120}
    monkeypatch.setattr(module, "MOST_COMPARISONS", 100)
    write(tmp_path, {".gitignore": "?a\n" * 50} | {f"f{number}": "" for number in range(10)})
    with pytest.raises(
        SnapshotError,
        match=r"its ignore files have too many patterns for so many files: exclude whole folders$",
    ):
        names(tmp_path)


@pytest.mark.parametrize("content", [b"\\\n", b"[\n", b"\xff\n", b"!\n", b"/\n", b"**/**\\\n"])
def test_a_pattern_that_means_nothing_leaves_nothing_out(tmp_path, content):
    write(tmp_path, {**TRAIN, ".mlflowignore": content})
    assert names(tmp_path) == {"train.py", ".mlflowignore"}


def test_an_ignore_file_that_is_too_large_is_refused(tmp_path):
    write(tmp_path, {**TRAIN, ".gitignore": "x\n" * 500_001})
    with pytest.raises(SnapshotError) as error:
        names(tmp_path)
    assert str(error.value) == (".gitignore: is larger than 1.0 MB: correct or remove it")


@pytest.mark.parametrize(
    "files", [{".git/config": ""}, {".mlflowignore": "*\n", "a": ""}, {".env": ""}]
)
def test_a_project_without_files_is_refused(tmp_path, files):
    write(tmp_path, files)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SnapshotError, match="the project has no files to send"):
        names(tmp_path)


def test_sockets_and_pipes_are_passed_over(tmp_path):
    write(tmp_path, TRAIN)
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == {"train.py"}


def test_a_project_given_by_a_path_through_a_link_is_the_project(tmp_path):
    root = write(tmp_path / "project", {**TRAIN, ".gitignore": "x\n", "x": "", "deep/y": ""})
    (root / "link").symlink_to("deep/y")
    (tmp_path / "way").symlink_to(root)
    assert project_files(tmp_path / "way").members.keys() == project_files(root).members.keys() == {
        "train.py", ".gitignore", "deep/y", "link",
    }  # fmt: skip


def test_a_folder_is_whole_unless_something_of_it_is_left_out(tmp_path):
    files = {
        "whole/a": "",
        "whole/__pycache__/b": "",
        "secret/.env": "",
        "secret/a": "",
        "data/a": "",
        "deep/data/a": "",
        "deep/b": "",
    }
    write(
        tmp_path,
        {
            **TRAIN,
            **files,
            ".gitignore": "data\n",
            "run/mlruns/0": "",
            "e/env/pyvenv.cfg": "",
            "wholesome/.env": "",
        },
    )
    listing = project_files(tmp_path)
    assert [
        name
        for name in ("whole", "secret", "data", "deep", "deep/data", "run", "e", "e/env")
        if listing.is_whole(name)
    ] == ["whole"]
