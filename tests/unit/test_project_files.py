"""Files that an environment names: the project's own, of a size that can be read, in every encoding
that pip reads.
"""

import os

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_backend.environment import kinds
from mlflow_backend.environment.parsers import conda_yaml, python_env
from mlflow_backend.environment.permissions import Permissions
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.errors import EnvironmentSpecError

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["-r x.txt", "-c", "--index-url", "a[", "${A}", "a::b", "\0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["pip", "A", "dependencies", "x y", ""]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
KEYS = ("name", "channels", "dependencies", "variables", "python", "build_dependencies", "prefix")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "project" / "sub").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("hf_secret\n")
    return tmp_path / "project"


@pytest.fixture
def read(root):
    """The pip lines of a python_env.yaml with these dependencies."""

    def call(*dependencies):
        (root / "python_env.yaml").write_text(yaml.safe_dump({"dependencies": list(dependencies)}))
        return python_env.read(root / "python_env.yaml", root).pip

    return call


def problem(function, *arguments):
    with pytest.raises(EnvironmentSpecError) as error:
        function(*arguments)
    assert "secret" not in str(error.value).replace("secret.txt", "") and "\n" not in str(
        error.value
    )
    return str(error.value)


def problem_or_none(function, *arguments):
    try:
        function(*arguments)
    except EnvironmentSpecError as error:
        return str(error)
    return None


def test_files_of_the_project_are_followed_from_where_they_are_named(root, read):
    (root / "sub" / "a.txt").write_text("six\n-r ../b.txt\n")
    (root / "b.txt").write_text("-c sub/c.txt\n")
    (root / "sub" / "c.txt").write_text("numpy<3\n")
    assert read("-r sub/a.txt", "--requirement=b.txt", "-rb.txt") == (
        "six",
        "-c numpy<3",
        "-c numpy<3",
        "-c numpy<3",
    )


@pytest.mark.parametrize("option", ["-r", "-c", "--requirement=", "--constraint "])
@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "sub/../../secret.txt",
        "/proc/self/environ",
        "link.txt",
        "folder/secret.txt",
        "{absolute}",
    ],
)
def test_a_file_outside_the_project_is_never_read(root, read, option, name):
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "folder").symlink_to(root.parent)
    line = f"{option} {name.format(absolute=root.parent / 'secret.txt')}"
    assert problem(read, line).endswith(
        ": is outside the project's folder: copy the file into the project"
    )


def test_the_environment_file_itself_is_in_the_project(root):
    (root.parent / "conda.yaml").write_text("secret: 1")
    for name in ("../conda.yaml", str(root.parent / "conda.yaml")):
        found = kinds.detect(root, {"conda_env": name})
        assert "is outside the project's folder" in problem(
            found.inputs, Platform("linux-64", {}), "3"
        )
    for value in (5, ["a"], None):
        assert problem(kinds.detect, root, {"conda_env": value}).startswith(
            "MLproject: 'conda_env' must name a file"
        )


def test_what_is_not_a_file_is_refused_at_once(root, read):
    os.mkfifo(root / "pipe")
    assert problem(read, "-r pipe").endswith("pipe: is not a regular file")
    assert problem(read, "-r sub").endswith("sub: is not a regular file")
    assert problem(read, "-r none.txt").endswith(
        "none.txt: cannot be read: No such file or directory"
    )
    assert "is not the name of a file" in problem(
        kinds.CondaEnv(root / "a\0b", root).read, "linux-64"
    )


def test_size_number_and_cycles_are_limited(root, read):
    (root / "large.txt").write_text("#" * 1_000_001)
    assert problem(read, "-r large.txt").endswith("large.txt: is larger than 1 MB")
    (root / "a.txt").write_text("-r b.txt")
    (root / "b.txt").write_text("-r a.txt")
    assert problem(read, "-r a.txt").endswith("a.txt: includes itself")
    (root / "leaf.txt").write_text("six\n")
    (root / "many.txt").write_text("-r leaf.txt\n" * 101)
    assert problem(read, "-r many.txt").endswith("leaf.txt: more than 100 files of requirements")
    for number in range(30):  # each names the next one twice
        (root / f"n{number}.txt").write_text(f"-r n{number + 1}.txt\n" * 2)
    (root / "n30.txt").write_text("")
    assert problem(read, "-r n0.txt").endswith("more than 100 files of requirements")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom", "utf-32"]
)
def test_requirements_in_every_encoding_that_pip_reads(root, read, encoding):
    marks = {"utf-16-le-bom": b"\xff\xfe", "utf-16-be-bom": b"\xfe\xff"}
    data = "six  # ü\n".encode(encoding.removesuffix("-bom"))
    (root / "r.txt").write_bytes(marks.get(encoding, b"") + data)
    assert read("-r r.txt") == ("six",)
    (root / "conda.yaml").write_bytes(
        marks.get(encoding, b"") + "dependencies: [tool]\n".encode(encoding.removesuffix("-bom"))
    )
    assert conda_yaml.read(root / "conda.yaml", root, "linux-64").conda == ("tool",)


def test_a_file_in_another_encoding_is_named(root, read):
    (root / "r.txt").write_bytes(b"six # \xfc\n")
    assert problem(read, "-r r.txt").endswith(
        "python_env.yaml: r.txt: is not text in utf-8 (byte 6): save the file as UTF-8"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-f file:///etc", "a folder of this machine is not available to the run"),
        ("--index-url=file:///srv/simple", "a folder of this machine is not available to the run"),
        ("x @ git+file:///etc", "a path of this machine"),
        ("git+file:///etc#egg=x", "a path of this machine"),
        ("file:///etc/x.whl", "a path of this machine"),
        ("hg+https://a.example/x", "write a URL with https://"),
        ("x @ ssh://a.example/x", "write a URL with https://"),
        ("--trusted-host a.example", "a project cannot turn off certificate checks"),
        ("--index-url https://a.example --trusted-host a.example", "one option on each line"),
        ("--pre --trusted-host=a.example", "one option on each line"),
        ("--index-url", "one option on each line"),
        ("--index-url https://a.example/\\@b.example", "quote the characters"),
        ("six\n--trusted-host a.example", "one package in each entry"),
        ("https://a.example/x.whl --no-binary x", "write a marker"),
        ("six --hash=sha256:00", "64 hex digits"),
        ("six --hash=sha256:" + "g" * 64, "64 hex digits"),
        ("six --hash=:", "64 hex digits"),
    ],
)
def test_lines_that_reach_for_this_machine_or_hide_another_are_refused(read, line, words):
    assert words in problem(read, line)


def test_a_long_line_takes_no_time(root, read):
    """Quadratic patterns would take minutes for these."""
    for line in (
        "six" + " " * 900_000 + "x",
        "-r" + "=" * 900_000 + " x y",
        "six " + "--hash " * 100_000,
        "x @ " + "a" * 900_000,
        "#" * 900_000,
    ):
        (root / "r.txt").write_text(line)
        assert len(problem_or_none(read, "-r r.txt") or "") < 1000
    (root / "conda.yaml").write_text(
        "dependencies:\n- a" + " " * 400_000 + "x\n- b" + " #" * 200_000 + "\n"
    )
    assert len(conda_yaml.read(root / "conda.yaml", root, "linux-64").conda) == 2


@pytest.mark.parametrize(
    "text",
    ["variables: {A: []}", "variables: {A: {b: c}}", "variables: {'A B': c}", "variables: {'': c}", "variables: 5", "channels: [[a]]", "channels: ['a b']",
     "dependencies: [[a]]", "dependencies: [{pip: a}]", "dependencies: [{pip: {a: b}}]", "dependencies: [{pip: [[a]]}]", "dependencies: ['a\n\n  b']",
     "dependencies: " + "[" * 3000, "{" * 3000, "a: &a [x]\nb: &b [*a,*a]\nvariables: [*b, *b]", "- a", "? [a]\n: b", "\0"],
)  # fmt: skip
def test_a_malformed_conda_yaml_is_one_line(root, text):
    (root / "conda.yaml").write_text(text)
    assert len(problem(conda_yaml.read, root / "conda.yaml", root, "linux-64")) < 400


@pytest.mark.parametrize(
    "text",
    [
        "python: {}\ndependencies: [a]",
        "python: [3]",
        "python: '3.11 or so'",
        "dependencies: {a: b}",
        "build_dependencies: a",
    ],
)
def test_a_malformed_python_env_yaml_is_one_line(root, text):
    (root / "python_env.yaml").write_text(text)
    found = kinds.detect(root, {})
    problem(lambda: found.lock(Platform("linux-64", {}), "3", Permissions(False, ()), False))


def test_an_empty_python_version_file_is_no_traceback(root):
    (root / "uv.lock").write_text(
        'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n\n[[package]]\nname = '
        '"own"\nversion = "1"\nsource = { virtual = "." }\n'
    )
    (root / "pyproject.toml").write_text(
        '[project]\nname = "own"\nversion = "1"\nrequires-python = ">=3.11"\n'
    )
    (root / ".python-version").write_text("\n")
    assert (
        kinds.detect(root, {})
        .lock(Platform("linux-64", {}), "3", Permissions(False, ()), False)
        .lock.pylock
        == ""
    )
    (root / ".python-version").unlink()
    (root / ".python-version").symlink_to(root.parent / "secret.txt")
    assert "outside the project" in problem(
        kinds.detect(root, {}).inputs, Platform("linux-64", {}), "3"
    )


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=4))
def test_any_yaml_is_read_or_refused(root, content):
    content = yaml.safe_dump(content)
    for name, read_file in (
        ("conda.yaml", lambda path: conda_yaml.read(path, root, "linux-64")),
        ("python_env.yaml", lambda path: python_env.read(path, root)),
    ):
        (root / name).write_text(content)
        if (text := problem_or_none(read_file, root / name)) is not None:
            assert "\n" not in text
            continue
        spec = read_file(root / name)
        assert all(
            isinstance(line, str) and len(line.splitlines()) == 1
            for line in (*spec.pip, *spec.conda, *spec.channels)
        )
        assert all(isinstance(value, str) for value in spec.variables.values())
        assert spec.names is not None
