"""The targets file: where it is found, how targets extend each other, which line an error names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.config import lookup
from mlflow_backend.config.backend_config import parse as parse_config
from mlflow_backend.config.target import Resources
from mlflow_backend.config.targets_file import FILE_NAME, VARIABLE, load_files, overlay, parse
from mlflow_backend.errors import ClusterError, ConfigError

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
    return tmp_path


def no_cluster():
    return None


def test_a_target_inherits_what_it_does_not_set():
    targets = parse(TWO_TARGETS, "file").targets
    assert targets["gpu"].resources.model_dump(exclude_none=True) == {"cpu": "4", "memory": "16Gi", "gpu": 1}
    assert targets["gpu"].image == "runner:1"
    assert targets["cpu"].tracking_uri == "https://mlflow.example.com"
    assert targets["gpu"].tracking_uri == "https://other.example.com"


def test_files_are_found_upwards_then_in_the_user_s_config_directory_nearest_first(folders):
    user = folders / "config" / "mlflow-compute"
    user.mkdir(parents=True)
    (user / FILE_NAME).write_text("targets: {mine: {image: u}, both: {image: u}}")
    (folders / "a" / FILE_NAME).write_text("targets: {both: {image: near}}")
    assert [source.source for source in load_files()] == [str(folders / "a" / FILE_NAME), str(user / FILE_NAME)]
    assert lookup.find(parse_config({"COMPUTE": "both"}), no_cluster).target.image == "near"
    assert lookup.find(parse_config({"COMPUTE": "mine"}), no_cluster).target.image == "u"


def test_a_file_named_by_the_variable_is_the_only_one(folders, monkeypatch):
    (folders / "a" / FILE_NAME).write_text("targets: {near: {image: n}}")
    named = folders / "named.yaml"
    named.write_text("targets: {far: {image: f}}")
    monkeypatch.setenv(VARIABLE, str(named))
    assert [list(source.targets) for source in load_files()] == [["far"]]
    monkeypatch.setenv(VARIABLE, str(folders / "missing.yaml"))
    with pytest.raises(ConfigError, match="missing.yaml"):
        load_files()


def test_the_cluster_is_asked_only_for_a_name_that_no_file_defines(folders):
    (folders / "a" / FILE_NAME).write_text("targets: {near: {image: n}}")

    def unreachable():
        raise ClusterError("no route")

    assert lookup.find(parse_config({"COMPUTE": "near"}), unreachable).target.image == "n"
    from_cluster = parse("targets: {shared: {image: s}}", "ConfigMap x")
    assert lookup.find(parse_config({"COMPUTE": "shared"}), lambda: from_cluster).source == "ConfigMap x"
    with pytest.raises(ConfigError, match="did you mean 'near'.*no route"):
        lookup.find(parse_config({"COMPUTE": "near1"}), unreachable)


def test_an_unknown_target_lists_the_known_ones_and_where_they_are(folders):
    path = folders / "a" / FILE_NAME
    path.write_text(TWO_TARGETS)
    with pytest.raises(ConfigError) as error:
        lookup.find(parse_config({"COMPUTE": "nowhere"}), no_cluster)
    assert "'nowhere'" in str(error.value) and str(path) in str(error.value) and "cpu, gpu" in str(error.value)


def test_a_run_s_own_fields_go_before_the_target_s(folders):
    (folders / "a" / FILE_NAME).write_text(TWO_TARGETS)
    found = lookup.find(parse_config({"COMPUTE": "gpu", "resources": {"memory": "1Gi"}, "env": {"A": 1}}), no_cluster)
    assert found.target.resources.memory == "1Gi" and found.target.resources.cpu == "4" and found.target.env == {"A": 1}
    with pytest.raises(ConfigError, match="backend_config resources.memory: '16 GB' is not a Kubernetes quantity"):
        lookup.find(parse_config({"COMPUTE": "gpu", "resources": {"memory": "16 GB"}}), no_cluster)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("targets:\n  a: {image: [}", ["file, line 2"]),
        ("targets:\n  a:\n    image: x\n    imag: y\n", ["line 4", "targets.a.imag", "did you mean 'image'?"]),
        ("target: {}\n", ["line 1", "unknown key 'target'", "did you mean 'targets'?"]),
        ("targets:\n  a: {extends: b}\n", ["line 2", "there is no target 'b'"]),
        ("targets:\n  a: {extends: b}\n  b: {extends: a}\n", ["line 3", "circle", "a -> b -> a"]),
        ("targets:\n  a:\n    resources:\n      memory: 16 GB\n", ["line 4", "targets.a.resources.memory", "16Gi"]),
        ("targets:\n  a:\n    resources: {gpus: 1}\n", ["line 3", "unknown resource 'gpus'"]),
        ("targets:\n  a: image\n", ["line 2", "targets.a"]),
        ("targets:\n  a:\n    grace_period: 3\n", ["line 3", "greater than or equal to 10", "3"]),
        ("targets:\n  a:\n    retry_on: [75]\n", ["line", "targets.a", "no 'retries'", "retries: 3"]),
        ("- a\n", ["line 1", "targets:"]),
    ],
)
def test_an_error_names_file_line_key_and_what_to_do(text, words):
    with pytest.raises(ConfigError) as error:
        parse(text, "file")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_file_defines_nothing():
    assert parse("", "file").targets == {}


@given(
    number=st.one_of(st.integers(0, 10**6), st.decimals(0, 1000, places=2)),
    unit=st.sampled_from(["", "m", "k", "Ki", "M", "Mi", "G", "Gi", "T", "Ti", "P", "Pi", "E", "Ei", "e3", "E-2"]),
)
def test_every_quantity_of_kubernetes_is_accepted(number, unit):
    assert Resources(memory=f"{number}{unit}").memory == f"{number}{unit}"


@given(st.sampled_from(["16 Gi", "16GB", "16gi", "-1", "1.2.3", "Gi", "", "1K", "0x10", "4 cpu", "1e", "NaN"]))
def test_no_other_text_is_a_quantity(text):
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        Resources(memory=text)


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.dictionaries(st.text(max_size=2), st.integers())))
def test_an_overlay_of_nothing_or_of_itself_changes_nothing(values):
    assert overlay(values, {}) == values
    assert overlay({}, values) == values
    assert overlay(values, values) == values
