"""Environment files: what they list, and the entry that an error names."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.environment.key import environment
from mlflow_backend.environment.spec import read
from mlflow_backend.errors import EnvironmentSpecError

PACKAGES = st.lists(st.from_regex(r"[a-z]{1,8}==[0-9]\.[0-9]", fullmatch=True), max_size=6)


@pytest.fixture
def spec(tmp_path):
    def make(kind, text, **files):
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content)
        path = tmp_path / ("conda.yaml" if kind == "conda_env" else "python_env.yaml")
        path.write_text(text)
        return read(SimpleNamespace(docker_env=None, env_type=kind, env_config_path=str(path)), "3.17.2")

    return make


@given(packages=PACKAGES, python=st.none() | st.sampled_from(["3.10", "3.11"]), order=st.randoms())
def test_the_key_depends_on_content_only(packages, python, order):
    shuffled = list(packages)
    order.shuffle(shuffled)
    assert environment(python, packages) == environment(python, shuffled + shuffled)
    assert environment(python, [*packages, "zz==1"]).key != environment(python, packages).key
    assert environment("3.9", packages).key != environment(python, packages).key


def test_conda_yaml_of_python_and_pip_packages(spec):
    text = "name: x\nchannels: [conda-forge]\ndependencies:\n- python=3.11\n- pip<=24\n- pip:\n  - mlflow==3.1\n  - numpy>=2  # why\n"
    found = spec("conda_env", text)
    assert found.environment.python == "3.11" and found.environment.packages == ("mlflow==3.1", "numpy>=2")
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("entry", "python"),
    [("python=3.11.*", "3.11"), ("python==3.10.4", "3.10.4"), ("conda-forge::python=3.12", "3.12"), ("python>=3.10", ">=3.10"),
     ("python", None), ("python 3.11", "3.11"), ("python=3.8.15=h4_cpython", "3.8.15")],
)  # fmt: skip
def test_python_in_every_way_conda_writes_it(spec, entry, python):
    assert spec("conda_env", f"dependencies:\n- {entry}\n- pip: [mlflow]\n").environment.python == python


def test_python_env_yaml_with_a_requirements_file(spec):
    text = 'python: 3.10\nbuild_dependencies: [setuptools]\ndependencies:\n- -r requirements.txt\n- "mlflow[extras]"\n'
    found = spec(
        "python_env", text, requirements__txt="# comment\n\nscipy==1.1 ; python_version > '3'\n--requirement more.txt\n", more__txt="a\n"
    )
    assert found.environment.python == "3.10", "a version, not the number 3.1"
    assert found.environment.packages == ("a", "mlflow[extras]", 'scipy==1.1; python_version > "3"', "setuptools")


def test_a_forgotten_mlflow_is_added_with_a_warning(spec):
    found = spec("python_env", "dependencies: [numpy]\n")
    assert "mlflow==3.17.2" in found.environment.packages
    assert "python_env.yaml does not list mlflow" in found.warnings[0]
    for listed in ("mlflow", "MLflow>=3", "mlflow-skinny", "mlflow_skinny"):
        assert spec("python_env", f"dependencies: ['{listed}']\n").warnings == ()


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("conda_env", "dependencies: [python=3.11, openblas=0.3]", ["conda.yaml", "'openblas=0.3'", "not supported yet"]),
        ("conda_env", "dependencies:\n- pip:\n  - --index-url https://x\n", ["'--index-url https://x'", "not supported yet"]),
        ("conda_env", "dependencies:\n- pip: [-e .]\n", ["'-e .'", "not supported yet"]),
        ("python_env", "dependencies: [git+https://example.com/x]", ["'git+https://example.com/x'"]),
        ("python_env", "dependencies: [-r none.txt]", ["none.txt", "cannot be read"]),
        ("python_env", "dependancies: [numpy]", ["unknown key 'dependancies'", "did you mean 'dependencies'?"]),
        ("python_env", "dependencies: numpy", ["'dependencies' must be a list"]),
        ("python_env", "dependencies: [", ["python_env.yaml, line"]),
    ],
)
def test_what_cannot_be_made_yet_is_named(spec, kind, text, words):
    with pytest.raises(EnvironmentSpecError) as error:
        spec(kind, text)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_docker_env_is_refused_with_what_to_do_instead():
    with pytest.raises(EnvironmentSpecError, match="docker_env is not supported yet: set 'image' in the target"):
        read(SimpleNamespace(docker_env={"image": "x"}), "3")


def test_a_project_without_a_file_uses_what_is_there():
    assert read(SimpleNamespace(docker_env=None, env_config_path=None, env_type="python_env"), "3") is None
