"""The targets file: where it is found, how targets extend each other, which line an error names."""

import os
import socket

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_backend.cli.targets import command
from mlflow_backend.errors import ClusterError, ConfigError
from mlflow_backend.plain_text import plain
from mlflow_backend.request.backend_config import parse as parse_config
from mlflow_backend.targets import lookup, targets_file, trust
from mlflow_backend.targets.target import Resources
from mlflow_backend.targets.targets_file import FILE_NAME, VARIABLE, load_files, overlay, parse

TWO_TARGETS = """\
tracking_uri: https://mlflow.example.com
targets:
  cpu:
    context: prod
    image: runner:1
    resources: {cpu: 4, memory: 16Gi}
  gpu: {extends: cpu, resources: {gpu: 1}, tracking_uri: https://other.example.com}
"""


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """An empty current directory two levels down, and an empty home."""
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def no_cluster():
    return None


def find(config, from_cluster=no_cluster, project=None, say=None):
    parsed = parse_config(config)
    return lookup.find(parsed.COMPUTE, parsed.overrides, from_cluster, project, say)


def sources(project=None):
    return [source.source for source in load_files(project).sources]


def test_a_target_inherits_what_it_does_not_set():
    targets = parse(TWO_TARGETS, "file").targets
    assert targets["gpu"].resources.model_dump(exclude_none=True) == {
        "cpu": "4",
        "memory": "16Gi",
        "gpu": 1,
    }
    assert targets["gpu"].image == "runner:1"
    assert targets["cpu"].tracking_uri == "https://mlflow.example.com"
    assert targets["gpu"].tracking_uri == "https://other.example.com"


def test_files_are_found_upwards_then_in_the_user_s_config_directory_nearest_first(folders):
    user = folders / "config" / "mlflow-compute"
    user.mkdir(parents=True)
    (user / FILE_NAME).write_text("targets: {mine: {image: u}, both: {image: u}}")
    (folders / "a" / FILE_NAME).write_text("targets: {both: {image: near}}")
    assert sources() == [str(folders / "a" / FILE_NAME), str(user / FILE_NAME)]
    assert find({"COMPUTE": "both"}).target.image == "near"
    assert find({"COMPUTE": "mine"}).target.image == "u"


def test_a_file_named_by_the_variable_is_the_only_one(folders, monkeypatch):
    (folders / "a" / FILE_NAME).write_text("targets: {near: {image: n}}")
    named = folders / "named.yaml"
    named.write_text("targets: {far: {image: f}}")
    monkeypatch.setenv(VARIABLE, str(named))
    assert [list(source.targets) for source in load_files(None).sources] == [["far"]]
    monkeypatch.setenv(VARIABLE, str(folders / "missing.yaml"))
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_files(None)


def test_the_cluster_is_asked_only_for_a_name_that_no_file_defines(folders):
    (folders / "a" / FILE_NAME).write_text("targets: {near: {image: n}}")

    def unreachable():
        raise ClusterError("no route")

    assert find({"COMPUTE": "near"}, unreachable).target.image == "n"
    from_cluster = parse("targets: {shared: {image: s}}", "ConfigMap x")
    assert find({"COMPUTE": "shared"}, lambda: from_cluster).source == "ConfigMap x"
    with pytest.raises(ConfigError, match="no route: did you mean 'near'"):
        find({"COMPUTE": "near1"}, unreachable)


def test_an_unknown_target_lists_the_known_ones_and_where_they_are(folders):
    path = folders / "a" / FILE_NAME
    path.write_text(TWO_TARGETS)
    with pytest.raises(ConfigError) as error:
        find({"COMPUTE": "nowhere"})
    assert (
        "'nowhere'" in str(error.value)
        and str(path) in str(error.value)
        and "cpu, gpu" in str(error.value)
    )


def test_a_run_s_own_fields_go_before_the_target_s(folders):
    (folders / "a" / FILE_NAME).write_text(TWO_TARGETS)
    found = find({"COMPUTE": "gpu", "resources": {"memory": "1Gi"}, "env": {"A": 1}})
    assert (
        found.target.resources.memory == "1Gi"
        and found.target.resources.cpu == "4"
        and found.target.env == {"A": 1}
    )
    with pytest.raises(
        ConfigError, match=r"backend_config resources\.memory: '16 GB' is not a Kubernetes quantity"
    ):
        find({"COMPUTE": "gpu", "resources": {"memory": "16 GB"}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("targets:\n  a: {image: [}", ["file, line 2"]),
        (
            "targets:\n  a:\n    image: x\n    imag: y\n",
            ["line 4", "targets.a.imag", "did you mean 'image'?"],
        ),
        ("target: {}\n", ["line 1", "unknown key 'target'", "did you mean 'targets'?"]),
        ("targets:\n  a: {extends: b}\n", ["line 2", "there is no target 'b'"]),
        ("targets:\n  a: {extends: b}\n  b: {extends: a}\n", ["line 3", "a -> b -> a is circular"]),
        (
            "targets:\n  a:\n    resources:\n      memory: 16 GB\n",
            ["line 4", "targets.a.resources.memory", "16Gi"],
        ),
        ("targets:\n  a:\n    resources: {gpus: 1}\n", ["line 3", "unknown resource 'gpus'"]),
        ("targets:\n  a: image\n", ["line 2", "targets.a"]),
        ("targets:\n  a:\n    grace_period: 3\n", ["line 3", "greater than or equal to 10", "3"]),
        (
            "targets:\n  a:\n    retry_on: [75]\n",
            ["line", "targets.a", "no 'retries'", "retries: 3"],
        ),
        ("- a\n", ["line 1", "targets:"]),
        ("targets:\n  ? null\n  : {image: x}\n", ["line", "a target's name must be text"]),
        ("targets:\n  12: {image: x}\n", ["line 2", "a target's name must be text"]),
        (
            "targets:\n  a: {extends: [b]}\n",
            ["line 2", "targets.a.extends", "name of one target", "['b']"],
        ),
        (
            "targets:\n  a: {extends: {b: c}}\n",
            ["line 2", "targets.a.extends", "name of one target"],
        ),
        ("targets:\n  a: " + "[" * 3000 + "\n", ["line 2", "nested deeper"]),
        (
            "targets:\n"
            + "".join(f"  t{n}: {{extends: t{n + 1}}}\n" for n in range(200))
            + "  t200: {}\n",
            ["line", "more than 50 targets extend one another"],
        ),
        ("targets:\n  a:\n    snapshot_files: 0\n", ["line 3", "greater than 0"]),
        (
            "targets:\n  a:\n    pod_template: {spec: {volumes: [true]}}\n",
            ["line 3", "spec.volumes.0: has no 'name': write fields with"],
        ),
        (
            "targets:\n  a:\n    tolerations: [{key: 2024-01-01}]\n",
            ["line 3", "0.key: a date is not a JSON value"],
        ),
        ('targets: {a: {"x\\ny": 1}}\n', ["unknown key 'x y'"]),
    ],
)
def test_an_error_names_file_line_key_and_what_to_do(text, words):
    with pytest.raises(ConfigError) as error:
        parse(text, "file")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("targets: {a: {imag: x}}", "UnknownField", "did you mean 'image'?"),
        (
            "targets: {a: {retry_on: [75]}}",
            "InvalidValue",
            "write how often, for example retries: 3",
        ),
        ("targets: {a: {grace_period: 3}}", "InvalidValue", ""),
        ("targets: {a: {extends: b}}", "UnknownTarget", "known: a"),
        ("targets: [", "InvalidFile", "correct the YAML"),
    ],
)
def test_an_error_has_a_code_and_a_hint_of_its_own(text, code, hint):
    with pytest.raises(ConfigError) as error:
        parse(text, "file")
    assert (error.value.code, error.value.hint) == (code, hint)


def test_an_empty_file_defines_nothing():
    assert parse("", "file").targets == {}


@pytest.mark.parametrize("data", [b"targets: {a: {image: \xff}}\n", "targets: {}".encode("utf-16")])
def test_a_file_that_is_not_utf_8_is_refused_in_one_line(folders, data):
    path = folders / "a" / FILE_NAME
    path.write_bytes(data)
    with pytest.raises(ConfigError) as error:
        load_files(None)
    assert str(error.value) == f"{path}, line 1: is not UTF-8: save the file as UTF-8"


@given(
    st.text(max_size=30)
    | st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.sampled_from(["extends", "targets"]),
        lambda below: (
            st.lists(below, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["targets", "a", "b", "extends", "env", "pod_template", "spec", "cache"]
                ),
                below,
                max_size=3,
            )
            | st.dictionaries(st.none() | st.integers() | st.text(max_size=3), below, max_size=2)
        ),
        max_leaves=10,
    ).map(yaml.safe_dump)
)
@example("targets: {a: {extends: [b]}, null: {}}")
def test_whatever_a_file_holds_it_is_used_or_refused_in_one_line(text):
    try:
        parse(text, "file")
    except ConfigError as error:
        text = str(error)
    else:
        return
    assert text.startswith("file") and plain(text) == text


def refused(folders, project):
    """The files in use, and the lines for those that are not."""
    files = load_files(project)
    return [source.source for source in files.sources], list(files.refused)


def test_no_file_of_the_project_that_is_run_is_used(folders):
    clone = folders / "a"
    (clone / "b" / FILE_NAME).write_text("targets: {evil: {image: e}, both: {image: e}}")
    (folders / FILE_NAME).write_text("targets: {both: {image: mine}}")
    near, own = clone / "b" / FILE_NAME, str(folders / FILE_NAME)
    said = (
        f"{near} is not used: it is part of the project that is run ({{}}); to use it: "
        f"mlflow-compute targets allow {near}"
    )
    assert refused(folders, clone / "b") == ([own], [said.format(clone / "b")])
    assert refused(folders, clone) == ([own], [said.format(clone)])
    (clone / "project").mkdir()
    assert refused(folders, clone / "project") == ([str(near), own], [])
    (clone / ".git").mkdir()
    assert refused(folders, clone / "project") == ([own], [said.format(clone)])


def test_no_file_that_an_archive_may_hold_beside_its_project_is_used(folders):
    """`tar xf; mlflow run evil/project`: a `.git` in the archive bounds nothing, as its author made
    it.
    """
    archive, project = folders / "a" / "b" / "evil", folders / "a" / "b" / "evil" / "project"
    (project / ".git").mkdir(parents=True)
    for place in (archive / FILE_NAME, folders / "a" / "b" / FILE_NAME, folders / FILE_NAME):
        place.write_text("targets: {both: {image: x}}")
    used, lines = refused(folders, project)
    assert used == [str(folders / FILE_NAME)], "an archive is not unpacked over the home folder"
    assert lines == [
        (
            f"{folders / 'a' / 'b' / FILE_NAME} is not used: it may have come with the project that is "
            f"run ({project}); to use it: mlflow-compute targets allow "
            f"{folders / 'a' / 'b' / FILE_NAME}"
        )
    ]


def test_a_file_that_the_user_allowed_is_used_until_it_changes(folders):
    path = folders / "a" / "b" / FILE_NAME
    path.write_text("targets: {mine: {image: x}}")
    assert refused(folders, path.parent)[0] == []
    assert list(targets_file.allow(path).targets) == ["mine"]
    assert refused(folders, path.parent) == ([str(path)], [])
    path.write_text("targets: {mine: {image: evil}}")
    used, (line,) = refused(folders, path.parent)
    assert (
        used == []
        and "is part of the project that is run" in line
        and ("has changed since it was allowed") in line
    )
    targets_file.allow(path)
    assert refused(folders, path.parent) == ([str(path)], [])


def test_the_command_that_allows_a_file(folders):
    path = folders / "a" / "b" / FILE_NAME
    allow = ["allow", FILE_NAME]
    missing = CliRunner().invoke(command, allow)
    assert (missing.exit_code, missing.output) == (
        1,
        f"Error: {path}: cannot be read: No such file or directory\n",
    )
    path.write_text("targets: {mine: {image: x}}")
    assert CliRunner().invoke(command, allow).output == (
        f"{path} is allowed until it changes: mine\n"
    )
    assert refused(folders, path.parent) == ([str(path)], [])


@pytest.mark.parametrize("content", ["targets: [", "x: 1"])
def test_what_is_no_targets_file_is_not_allowed(folders, content):
    path = folders / "a" / "b" / FILE_NAME
    path.write_text(content)
    with pytest.raises(ConfigError):
        targets_file.allow(path)
    assert refused(folders, path.parent)[0] == []


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}', "\x00"])
def test_a_damaged_record_of_what_is_allowed_allows_nothing(folders, content):
    path = folders / "a" / "b" / FILE_NAME
    path.write_text("targets: {mine: {image: x}}")
    targets_file.allow(path)
    (record,) = (folders / "state" / "mlflow-compute").iterdir()
    assert record.stat().st_mode & 0o777 == 0o600
    record.write_text(content)
    assert refused(folders, path.parent)[0] == []


def test_a_target_of_the_project_itself_is_named_with_what_allows_it(folders, monkeypatch):
    path = folders / "a" / "b" / FILE_NAME
    path.write_text("targets: {evil: {image: e}}")
    with pytest.raises(ConfigError) as error:
        find({"COMPUTE": "evil"}, project=path.parent)
    assert str(error.value).endswith(f"{path} is not used: it is part of the project that is run "
                                     f"({path.parent}); "
                                     f"to use it: mlflow-compute targets allow {path}")  # fmt: skip
    monkeypatch.setenv(VARIABLE, str(path))
    assert find({"COMPUTE": "evil"}, project=path.parent).source == str(path)


def test_a_file_that_is_left_out_is_said_where_another_defines_the_target(folders):
    path = folders / "a" / "b" / FILE_NAME
    path.write_text("targets: {both: {image: e}}")
    (folders / FILE_NAME).write_text("targets: {both: {image: mine}}")
    said = []
    assert find({"COMPUTE": "both"}, project=path.parent, say=said.append).target.image == "mine"
    assert len(said) == 1 and said[0].startswith(
        f"{path} is not used: it is part of the project that is run"
    )


def test_links_do_not_hide_where_a_file_comes_from(folders, monkeypatch):
    clone = folders / "clone"
    clone.mkdir()
    (clone / FILE_NAME).write_text("targets: {evil: {image: e}}")
    (folders / "a" / FILE_NAME).symlink_to(clone / FILE_NAME)
    (folders / "way").symlink_to(clone)
    for project in (clone, folders / "way"):
        assert refused(folders, project)[0] == []
    monkeypatch.chdir(folders / "way")
    assert sources(clone) == [] and sources(folders / "way") == []


def test_the_user_s_own_file_is_used_though_home_is_a_git_repository(folders):
    user = folders / "config" / "mlflow-compute" / FILE_NAME
    user.parent.mkdir(parents=True)
    user.write_text("targets: {mine: {image: u}}")
    (folders / ".git").mkdir()
    assert sources(folders / "a") == [str(user)]


@pytest.mark.parametrize("place", ["file", "folder"])
@pytest.mark.parametrize(
    ("how", "words"), [("mode", "other users can write"), ("owner", "belongs to another user")]
)
def test_a_file_that_others_may_have_written_is_not_used(folders, place, how, words, monkeypatch):
    path = folders / "a" / FILE_NAME
    path.write_text("targets: {evil: {image: e}}")
    changed = path if place == "file" else path.parent
    if how == "owner":
        foreign(changed, monkeypatch)
    else:
        changed.chmod(0o777)
    used, lines = refused(folders, None)
    assert used == [] and len(lines) == 1
    assert (
        lines[0].startswith(f"{path} is not used: ")
        and words in lines[0]
        and lines[0].endswith(f"targets allow {path}")
    )


@pytest.mark.parametrize(
    ("mode", "group", "may"),
    [(0o100664, 4_000_000, True), (0o100666, 0, True), (0o100664, 0, False), (0o100644, 4_000_000, False), (0o040775, 4_000_000, True),
     (0o041777, 4_000_000, False), (0o041775, 4_000_000, False)],
)  # fmt: skip
def test_a_group_that_others_may_be_in_counts_as_others(mode, group, may):
    assert (
        trust.others_may_write(os.stat_result((mode, 1, 1, 1, os.getuid(), group, 1, 0, 0, 0)))
        is may
    )


def foreign(path, monkeypatch):
    """Give the file to another user, or, where only root may, let this process be another user."""
    if os.getuid() == 0:
        os.chown(path, 65534, -1)
    else:
        own = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: own + 1)


def test_a_file_that_others_may_have_written_is_not_even_read(folders, monkeypatch):
    path = folders / "a" / FILE_NAME
    path.write_text("[" * 3000)
    path.chmod(0o666)
    assert refused(folders, None)[0] == []


def test_a_folder_like_tmp_where_only_owners_replace_files_is_no_danger(folders):
    (folders / "a" / FILE_NAME).write_text("targets: {mine: {image: u}}")
    (folders / "a").chmod(0o1777)
    assert sources() == [str(folders / "a" / FILE_NAME)]


def test_what_is_no_regular_file_is_passed_over(folders):
    (folders / "a" / "b" / FILE_NAME).mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        place = os.getcwd()
        os.chdir(folders / "a")
        listener.bind(FILE_NAME)  # the name of a socket must be short
        os.chdir(place)
    assert refused(folders, None) == ([], [])


@given(
    number=st.one_of(st.integers(0, 10**6), st.decimals(0, 1000, places=2)),
    unit=st.sampled_from(
        ["", "m", "k", "Ki", "M", "Mi", "G", "Gi", "T", "Ti", "P", "Pi", "E", "Ei", "e3", "E-2"]
    ),
)
def test_every_quantity_of_kubernetes_is_accepted(number, unit):
    assert Resources(memory=f"{number}{unit}").memory == f"{number}{unit}"


@given(
    st.sampled_from(
        ["16 Gi", "16GB", "16gi", "-1", "1.2.3", "Gi", "", "1K", "0x10", "4 cpu", "1e", "NaN"]
    )
)
def test_no_other_text_is_a_quantity(text):
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        Resources(memory=text)


@given(
    st.dictionaries(
        st.text(max_size=3), st.integers() | st.dictionaries(st.text(max_size=2), st.integers())
    )
)
def test_an_overlay_of_nothing_or_of_itself_changes_nothing(values):
    assert overlay(values, {}) == values
    assert overlay({}, values) == values
    assert overlay(values, values) == values
