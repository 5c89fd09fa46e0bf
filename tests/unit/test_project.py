"""An MLflow Project: what its author wrote is read or refused in one line, and chooses no files of
the user's.
"""

import json
import os
import subprocess
import tempfile
import zipfile

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlflow_backend.errors import ProjectError
from mlflow_backend.places.kubernetes.objects import manifest
from mlflow_backend.request import project as projects
from mlflow_backend.request.project import base_name, command, file_parameters
from tests.unit.trees import write

COMMAND = "entry_points: {main: {command: 'true'}}"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory, and an empty folder for temporary files."""
    for name in ("cwd", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


def project(root, text=COMMAND, entry_point="main", parameters=None, **files):
    write(root, {"MLproject": text, **files})
    return projects.load(str(root), None, entry_point, parameters)


def with_parameters(root, fields, given=None, text="echo"):
    main = {"parameters": fields, "command": text}
    return project(root, json.dumps({"entry_points": {"main": main}}), parameters=given)


def refused(function, *arguments, **keywords):
    with pytest.raises(ProjectError) as error:
        function(*arguments, **keywords)
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("2024", "2024"),
        ("yes", "True"),
        ("[a]", "['a']"),
        ("''", "demo"),
        ("null", "demo"),
        ("0", "0"),
        ("{a: b}", "{'a': 'b'}"),
    ],
)
def test_a_name_of_any_type_is_taken_as_text(tmp_path, name, shown):
    found = project(tmp_path / "demo", f"name: {name}\n{COMMAND}")
    assert found.name == shown and manifest.job_name(found.name, "0" * 32, "1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "",
            "line 1: None is not valid: write 'entry_points:' with an entry point's name below it",
        ),
        (
            "- a\n",
            "line 1: ['a'] is not valid: write 'entry_points:' with an entry point's name below it",
        ),
        (
            "entry_points:\n",
            "line 1, entry_points: None is not valid: write an entry point's name below it",
        ),
        (
            "entry_points:\n  main: echo\n",
            "line 2, entry_points.main: 'echo' is not valid: write 'command:' below it",
        ),
        (
            "entry_points:\n  main:\n    command: [a]\n",
            "line 3, entry_points.main.command: ['a'] is not valid: write a command as text",
        ),
        (
            "entry_points:\n  main:\n    parameters: [a]\n",
            "line 3, entry_points.main.parameters: ['a'] is not valid: write a parameter's name below it",
        ),
        (
            "entry_points:\n  main:\n    parameters:\n      a: 1\n",
            (
                "line 4, entry_points.main.parameters.a: 1 is not valid: write a type such as float, or "
                "'type:' and 'default:'"
            ),
        ),
        ("conda_env: [a]\n", "line 1, conda_env: ['a'] is not valid: write the name of a file"),
        ("docker_env: image\n", "line 1, docker_env: 'image' is not valid: write fields below it"),
        ("a: " + "[" * 3000, "line 1: is nested deeper than 100 levels: correct the YAML"),
        (
            "a: &a [b, *a]\n",
            "line 1: an alias refers to an entry that contains it: correct the YAML",
        ),
        ("a: [\n", "line 2: expected the node content, but found '<stream end>': correct the YAML"),
    ],
)
def test_a_file_that_mlflow_cannot_read_is_refused_with_its_line(tmp_path, text, words):
    assert refused(project, tmp_path, text) == f"{tmp_path}/MLproject, {words}"


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    assert refused(project, tmp_path, b"a: \xff\n") == (
        f"{tmp_path}/MLproject, line 1: is not UTF-8: save the file as UTF-8"
    )


KEYS = [
    "name",
    "entry_points",
    "main",
    "parameters",
    "command",
    "type",
    "default",
    "path",
    "uri",
    "conda_env",
    "docker_env",
    "image",
    "x",
]
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(KEYS)
    | st.dates(),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.integers() | st.none(), below, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY | st.fixed_dictionaries({"entry_points": st.fixed_dictionaries({"main": ANY})}))
@example(
    {
        "name": 2024,
        "entry_points": {
            "main": {"parameters": {"a/b": {"type": "path", "default": "x"}}, "command": "{a.b}"}
        },
    }
)
@example(
    {
        "entry_points": {
            "main": {
                "parameters": {None: "path", 1: {"type": "uri", "default": []}},
                "command": "{1:9999999999}",
            }
        }
    }
)
def test_any_content_is_taken_or_refused_in_one_line(tmp_path_factory, content):
    root = tmp_path_factory.mktemp("project")
    texts = []
    try:
        found = project(root, yaml.safe_dump(content))
        texts += [found.name, *found.environment_files.values()]
        placed = {parameter.name: "/x" for parameter in file_parameters(found, confined=True)}
        texts.append(command(found, placed))
    except ProjectError as error:
        line = str(error)
    else:
        line = ""
    assert line == "" or line.isprintable()
    assert all(isinstance(text, str) for text in texts)


@pytest.fixture
def private(here):
    """Files of the user's, some of them in a project of an author who is after the others."""
    write(
        here,
        {
            "home/.ssh/id_ed25519": "x",
            "home/data/a.csv": "x",
            "cwd/data/a.csv": "x",
            "project/data/a.csv": "x",
            "project/.env": "x",
        },
    )
    (here / "project/way").symlink_to(here / "home")
    (here / "project/file").symlink_to(here / "home/.ssh/id_ed25519")
    return here


@pytest.mark.parametrize("kind", ["path", "uri"])
@pytest.mark.parametrize(
    "default",
    [
        "{here}/home/.ssh/id_ed25519",
        "{here}/home/data",
        "../home/data",
        "data/../../home/data",
        "way/data",
        "file",
        "..",
        "/",
        "%2e%2e/home/data",
    ],
)
def test_a_default_names_no_file_outside_of_the_project(private, kind, default):
    value = default.format(here=private)
    if kind == "uri":
        value = "file://" + value if value.startswith("/") else "file:" + value
    found = with_parameters(private / "project", {"data": {"type": kind, "default": value}})
    assert refused(file_parameters, found, confined=True) == (
        f"parameter 'data': its default {value!r} is outside of the project: to send it "
        f"intentionally, pass -P data={value}"
    )


@pytest.mark.parametrize("kind", ["path", "uri"])
def test_what_a_default_may_not_name_the_user_may(private, kind):
    value = f"{private}/home/.ssh/id_ed25519"
    shown = f"file://{value}" if kind == "uri" else value
    found = with_parameters(
        private / "project", {"data": {"type": kind, "default": "x"}}, {"data": shown}
    )
    (parameter,) = file_parameters(found, confined=True)
    assert (str(parameter.local), parameter.is_default) == (value, False)


def test_a_default_that_looks_like_a_secret_is_not_sent(private):
    found = with_parameters(private / "project", {"data": {"type": "path", "default": ".env"}})
    assert refused(file_parameters, found, confined=True) == (
        "parameter 'data': its default '.env' looks like a secret: to send it intentionally, "
        "pass -P data=.env"
    )
    given = with_parameters(
        private / "project", {"data": {"type": "path", "default": ".env"}}, {"data": ".env"}
    )
    assert [str(parameter.local) for parameter in file_parameters(given, confined=True)] == [
        f"{private}/project/.env"
    ]


def test_a_relative_default_is_looked_for_in_the_project_and_a_relative_value_here_first(private):
    fields = {"data": {"type": "path", "default": "data"}}

    def local(given):
        return str(
            file_parameters(with_parameters(private / "project", fields, given), confined=False)[
                0
            ].local
        )

    assert local({}) == f"{private}/project/data"
    assert local({"data": "data"}) == f"{private}/cwd/data"
    assert local({"data": ".env"}) == f"{private}/project/.env"


def test_a_default_that_is_only_here_is_not_taken_and_what_to_do_is_said(private):
    write(private, {"cwd/only here": "x"})
    found = with_parameters(private / "project", {"data": {"type": "path", "default": "only here"}})
    assert refused(file_parameters, found, confined=False) == (
        "parameter 'data': there is no file or folder 'only here' in the project, where defaults "
        "are: pass -P 'data=only here'"
    )


def test_a_command_on_this_machine_may_have_any_default_that_it_could_open_itself(private):
    value = f"{private}/home/data"
    found = with_parameters(private / "project", {"data": {"type": "path", "default": value}})
    assert [str(parameter.local) for parameter in file_parameters(found, confined=False)] == [value]


@pytest.mark.parametrize("given", [{"data": ""}, {}])
def test_an_empty_path_takes_nothing_along(here, given):
    found = with_parameters(
        here / "project", {"data": {"type": "path", "default": ""}}, given, "echo {data} end"
    )
    assert file_parameters(found, confined=True) == [] and command(found, {}) == "echo '' end"


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("uri", "", "'' is not a URI"),
        ("uri", "data", "'data' is not a URI"),
        ("path", "file://host/etc/passwd", "names a host"),
        ("uri", "file://localhost/etc/passwd", "names a host"),
        ("path", "http://[x", "is neither a path nor a URI"),
        (
            "path",
            "missing",
            "there is no file or folder 'missing' in the current directory or the project",
        ),
        ("path", "a\0b", "there is no file or folder"),
        ("path", "x" * 5000, "there is no file or folder"),
    ],
)
def test_a_value_that_names_nothing_is_refused(here, kind, value, words):
    found = with_parameters(here / "project", {"data": kind}, {"data": value})
    assert words in refused(file_parameters, found, confined=True)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", "../../x"])
def test_a_parameter_s_name_is_no_path(here, name):
    found = with_parameters(here / "project", {name: {"type": "path", "default": "MLproject"}})
    assert "valid as the name of a folder" in refused(file_parameters, found, confined=True)


def test_remote_values_are_downloaded_where_the_command_runs(here):
    fields = {
        "a": {"type": "path", "default": "s3://bucket/x"},
        "b": {"type": "uri", "default": "s3://bucket/y"},
        "c": "string",
    }
    found = file_parameters(
        with_parameters(here / "project", fields, {"c": "s3://bucket/z"}), confined=True
    )
    assert [(parameter.name, parameter.value, parameter.local) for parameter in found] == [
        ("a", "s3://bucket/x", None)
    ]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://b/a/c.csv", "c.csv"),
        ("s3://b/a/", "a"),
        ("s3://b", "data"),
        ("s3://b/..", "data"),
        ("https://h/a?x=/../b", "a"),
    ],
)
def test_the_name_of_what_is_downloaded_is_a_name(uri, name):
    assert base_name(uri) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "x {lr.value}",
            (
                "the command has {lr.value}: write the name of a declared parameter, and {{ and }} for "
                "braces"
            ),
        ),
        (
            "x {lr[0]}",
            (
                "the command has {lr[0]}: write the name of a declared parameter, and {{ and }} for "
                "braces"
            ),
        ),
        (
            "x {lr:.3f}",
            "the command has {lr:.3f}: write only its name, and {{ and }} for braces",
        ),
        (
            "x {lr:>9999999999}",
            "the command has {lr:>9999999999}: write only its name, and {{ and }} for braces",
        ),
        (
            "x {lr!r}",
            "the command has {lr!r}: write only its name, and {{ and }} for braces",
        ),
        (
            "x {}",
            "the command has {}: write the name of a declared parameter, and {{ and }} for braces",
        ),
        (
            "x {0}",
            "the command has {0}: write the name of a declared parameter, and {{ and }} for braces",
        ),
        (
            "awk '{print}'",
            (
                "the command has {print}: write the name of a declared parameter, and {{ and }} for "
                "braces"
            ),
        ),
        ("x {", "the command has a single brace: write {{ and }} for braces"),
        ("x }", "the command has a single brace: write {{ and }} for braces"),
    ],
)
def test_braces_that_hold_no_parameter_are_named(tmp_path, text, words):
    found = with_parameters(tmp_path, {"lr": {"type": "float", "default": 1}}, text=text)
    assert refused(command, found, {}) == f"{tmp_path}, entry point 'main': {words}"


def test_a_command_has_its_values_quoted(tmp_path):
    found = with_parameters(
        tmp_path,
        {"lr": {"type": "float", "default": 1}},
        {"lr": "a b", "more": "c d"},
        "x {lr} {{y}}",
    )
    assert command(found, {}) == "x 'a b' {y} --more 'c d'"


def test_an_entry_point_without_a_command_is_refused(tmp_path):
    assert refused(command, project(tmp_path, "entry_points: {main: {}}"), {}).endswith(
        "has no command: write 'command:' in MLproject"
    )


def test_a_script_runs_in_bash_whatever_shell_its_user_has(tmp_path, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/zsh")
    assert command(project(tmp_path / "a", "name: x", "run it.sh"), {}) == "bash 'run it.sh'"
    declared = "entry_points: {run.sh: {command: /bin/zsh run.sh}}"
    assert command(project(tmp_path / "b", declared, "run.sh"), {}) == "/bin/zsh run.sh"


@pytest.mark.parametrize("entry_point", ["nothing", "a.txt"])
def test_an_entry_point_that_does_not_exist_is_refused(tmp_path, entry_point):
    assert "could not find" in refused(project, tmp_path, COMMAND, entry_point)


def test_a_missing_parameter_is_refused_with_what_to_do(tmp_path):
    assert "'lr': pass each with -P NAME=VALUE" in refused(
        with_parameters, tmp_path, {"lr": "float"}
    )


def git(root, *arguments):
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", "-C", str(root), *settings, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def clone_uri(here, monkeypatch):
    """The address of a git repository with a login in it; git itself is told that it means a
    folder.
    """
    root = write(
        here / "served/repository", {"MLproject": COMMAND, "sub/MLproject": "name: sub\n" + COMMAND}
    )
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "x")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{here}/served/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://ada:s3cret@git.example/")
    return "https://ada:s3cret@git.example/repository"


def test_a_clone_is_gone_afterwards_and_keeps_and_shows_no_login(here, clone_uri, capfd, caplog):
    caplog.set_level("DEBUG")
    found = projects.load(f"{clone_uri}#sub", None, "main", None)
    (folder,) = (here / "tmp").iterdir()
    assert (found.name, found.work_dir) == ("sub", folder / "sub")
    assert git(folder, "remote", "get-url", "origin") == "https://git.example/repository"
    said = capfd.readouterr().err
    assert (
        said.startswith("mlflow-compute: fetching https://git.example/repository#sub\n")
        and "s3cret" not in said
    )
    assert "s3cret" not in "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("mlflow")
    )
    found.discard()
    assert os.listdir(here / "tmp") == []


@pytest.mark.parametrize(
    ("version", "words"),
    [("nowhere", "nable to checkout version 'nowhere'"), (None, "cannot be read as a project")],
)
def test_a_clone_that_fails_leaves_no_folder_and_shows_no_login(here, clone_uri, version, words):
    uri = clone_uri if version else clone_uri + "x"
    shown = refused(projects.load, uri, version, "main", None)
    assert words in shown and "s3cret" not in shown
    assert os.listdir(here / "tmp") == []


def zip_of(here, files):
    path = here / "project.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_zip_is_unpacked_into_a_folder_that_is_gone_afterwards(here, capfd):
    path = zip_of(here, {"MLproject": COMMAND, "sub/MLproject": "name: sub\n" + COMMAND})
    found = projects.load(f"{path}#sub", None, "main", None)
    assert (
        found.name == "sub"
        and found.work_dir.parent.parent == here / "tmp"
        and os.listdir(here / "tmp") == [found.work_dir.parent.name]
    )
    found.discard()
    assert os.listdir(here / "tmp") == []
    assert capfd.readouterr().err == f"mlflow-compute: fetching {path}#sub\n"


@pytest.mark.parametrize(
    ("files", "uri"),
    [
        ({"MLproject": "a: [\n"}, "{path}"),
        ({"MLproject": COMMAND}, "{path}#nowhere"),
        ({"MLproject": "entry_points: {main: {parameters: {a: float}, command: x}}"}, "{path}"),
        ({"MLproject": COMMAND, "../out": "x"}, "{path}"),
    ],
)
def test_a_project_that_cannot_be_used_leaves_no_folder(here, files, uri):
    refused(projects.load, uri.format(path=zip_of(here, files)), None, "main", None)
    assert os.listdir(here / "tmp") == []


def test_a_zip_that_is_none_or_unpacks_to_too_much_is_refused(here, monkeypatch):
    (here / "project.zip").write_text("x")
    assert "cannot be read as a project" in refused(
        projects.load, str(here / "project.zip"), None, "main", None
    )
    path = zip_of(here, {"MLproject": COMMAND, "a": "x"})
    for limit in ("ZIP_FILES", "ZIP_BYTES"):
        monkeypatch.setattr(projects, limit, 1)
        assert "would unpack to more than" in refused(projects.load, str(path), None, "main", None)
        monkeypatch.undo()
        monkeypatch.setattr(tempfile, "tempdir", str(here / "tmp"))
    assert os.listdir(here / "tmp") == []


def test_a_project_of_this_machine_is_left_alone(here):
    found = project(here / "project")
    found.discard()
    assert found.fetched is None and (here / "project/MLproject").exists()
