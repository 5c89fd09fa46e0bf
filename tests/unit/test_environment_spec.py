"""Environment files: what they ask for, and the entry that an error names."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.environment.parsers import conda_yaml, python_env, python_versions
from mlflow_backend.environment.parsers.spec import with_mlflow
from mlflow_backend.errors import EnvironmentSpecError


@pytest.fixture
def conda(tmp_path):
    def read(text, subdir="linux-64", **files):
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content)
        (tmp_path / "conda.yaml").write_text(text)
        return conda_yaml.read(tmp_path / "conda.yaml", tmp_path, subdir)

    return read


@pytest.fixture
def python(tmp_path):
    def read(text, **files):
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content)
        (tmp_path / "python_env.yaml").write_text(text)
        return python_env.read(tmp_path / "python_env.yaml", tmp_path)

    return read


def test_conda_yaml_of_python_and_pip_packages_needs_no_channel(conda):
    text = (
        "name: x\nchannels: [conda-forge]\ndependencies:\n- python=3.11\n- pip<=24\n- pip:\n  - "
        "mlflow==3.1\n  - numpy>=2  # why\n"
    )
    found = conda(text)
    assert (found.python, found.conda, found.pip) == ("3.11", (), ("mlflow==3.1", "numpy>=2"))


def test_conda_yaml_with_packages_that_are_no_python(conda):
    text = (
        "channels: [conda-forge, https://example.com/own]\ndependencies:\n- python=3.11\n- "
        "openblas=0.3 # fast\n- bioconda::samtools >=1.2\n- pip: [six]\nvariables: "
        "{OMP_NUM_THREADS: 4}\n"
    )
    found = conda(text)
    assert found.channels == ("conda-forge", "https://example.com/own")
    assert found.conda == ("python=3.11", "openblas=0.3", "bioconda::samtools >=1.2")
    assert found.pip == ("six",) and found.variables == {"OMP_NUM_THREADS": "4"}


def test_pip_packages_bring_python_along(conda):
    assert conda("dependencies: [tool, {pip: [six]}]").conda == ("tool", "python")
    assert conda("dependencies: [r-base]").conda == ("r-base",)


@pytest.mark.parametrize(
    ("entry", "version"),
    [("python=3.11.*", "3.11"), ("python==3.10.4", "3.10.4"), ("conda-forge::python=3.12", "3.12"), ("python>=3.10", ">=3.10"),
     ("python", None), ("python 3.11", "3.11"), ("python=3.8.15=h4_cpython", "3.8.15")],
)  # fmt: skip
def test_python_in_every_way_conda_writes_it(conda, entry, version):
    assert conda(f"dependencies:\n- {entry}\n- pip: [mlflow]\n").python == version


@pytest.mark.parametrize(
    ("selector", "platforms"),
    [("linux", {"linux-64", "linux-aarch64"}), ("linux64", {"linux-64"}), ("osx", {"osx-arm64"}), ("not osx", {"linux-64", "linux-aarch64"}),
     ("arm64", {"linux-aarch64", "osx-arm64"}), ("osx or linux64", {"linux-64", "osx-arm64"}), ("unix and not linux", {"osx-arm64"})],
)  # fmt: skip
def test_a_selector_keeps_an_entry_on_its_platforms_only(conda, selector, platforms):
    text = f"dependencies:\n- tool\n- other=2  # [{selector}]\n"
    found = {
        subdir
        for subdir in ("linux-64", "linux-aarch64", "osx-arm64")
        if "other=2" in conda(text, subdir).conda
    }
    assert found == platforms


def test_python_env_yaml_with_requirements_and_constraints(python):
    text = (
        "python: 3.10\nbuild_dependencies: [setuptools]\ndependencies:\n- -r "
        'requirements.txt\n- "mlflow[extras]"\n'
    )
    requirements = (
        "# comment\n\nscipy==1.1 ; python_version > '3'\n--requirement "
        "more.txt\n--index-url=https://example.com/simple\n-c limits.txt\n"
    )
    found = python(
        text,
        requirements__txt=requirements,
        more__txt="a \\\n  ; sys_platform == 'linux'\n",
        limits__txt="b<2\n",
    )
    assert found.python == "3.10", "a version, not the number 3.1"
    assert found.pip == (
        "setuptools", 'scipy==1.1; python_version > "3"', 'a; sys_platform == "linux"', "--index-url https://example.com/simple",
        "-c b<2", "mlflow[extras]",
    )  # fmt: skip


def test_hashes_and_versions_of_a_repository_stay(python):
    line = f"six==1.16 --hash=sha256:{'0' * 64}"
    assert python(f"dependencies: ['{line}', 'git+https://example.com/x@v1']").pip == (
        line,
        "git+https://example.com/x@v1",
    )


def test_a_forgotten_mlflow_is_added_with_a_warning(python):
    spec, warning = with_mlflow(python("dependencies: [numpy]\n"), "3.17.2")
    assert "mlflow==3.17.2" in spec.pip and "python_env.yaml does not list mlflow" in warning
    for listed in ("mlflow", "MLflow>=3", "mlflow-skinny", "mlflow_skinny", "mlflow[extras]<4"):
        assert with_mlflow(python(f"dependencies: ['{listed}']\n"), "3.17.2")[1] is None


def test_mlflow_of_a_conda_channel_counts(conda):
    assert with_mlflow(conda("dependencies: [tool, 'conda-forge::mlflow>=3']"), "3")[1] is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "dependencies:\n- pip:\n  - --target=x\n",
            ["conda.yaml: '--target=x'", "no meaning here", "--index-url"],
        ),
        (
            "dependencies:\n- pip: [-e .]\n",
            ["'-e .'", "editable install cannot be locked", "PYTHONPATH"],
        ),
        ("dependencies:\n- pip: [./own]\n", ["'./own'", "a path of this machine cannot be locked"]),
        ("dependencies:\n- pip: ['x @ file:///tmp/x.whl']\n", ["a path of this machine"]),
        ("dependencies:\n- pip: [--find-links ./wheels]\n", ["--find-links", "write a URL"]),
        ("dependencies:\n- pip: [-r none.txt]\n", ["none.txt", "cannot be read"]),
        ("dependencies:\n- pip: ['numpy = 1']\n", ["'numpy = 1'", "such as numpy==2.1"]),
        ("dependencies:\n- npm: [x]\n", ["entry 'npm'", "only 'pip'"]),
        ("dependancies: [numpy]", ["unknown key 'dependancies'", "did you mean 'dependencies'?"]),
        ("dependencies: numpy", ["'dependencies' must be a list"]),
        ("dependencies: [", ["conda.yaml, line"]),
        ("dependencies:\n- a # [lunix]\n", ["selector [lunix]", "linux"]),
        ("dependencies: [a]\nvariables: [b]\n", ["'variables' must map names to values"]),
    ],
)
def test_what_cannot_be_locked_is_named_with_what_to_do(conda, text, words):
    with pytest.raises(EnvironmentSpecError) as error:
        conda(text)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_credentials_of_an_index_are_not_in_an_error(conda):
    with pytest.raises(EnvironmentSpecError) as error:
        conda("dependencies:\n- pip: ['--proxy https://ada:secret@example.com']\n")
    assert "secret" not in str(error.value)


def test_the_python_of_a_range_is_this_one_if_it_fits(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.version_info", (3, 12, 1))

    def choose(wanted):
        return python_versions.python_version(wanted, tmp_path / "python_env.yaml")

    assert [choose(wanted) for wanted in (None, "3.9", "3.10.4", ">=3.10", "<3.12", ">=3.10,<3.14", ">= 3.13", "==3.11", "== 3.11.4")] == [
        "3.12", "3.9", "3.10.4", "3.12", "3.11", "3.12", "3.14", "3.11", "3.11.4",
    ]  # fmt: skip
    for wanted in (">=4", "three"):
        with pytest.raises(EnvironmentSpecError, match=f"python '{wanted}'"):
            choose(wanted)


@given(st.text(alphabet="ab=<>!~.1 ;[]#'\"-/@:\\", max_size=30))
def test_no_line_breaks_the_reader(tmp_path_factory, line):
    from mlflow_backend.environment.parsers import requirements

    root = tmp_path_factory.getbasetemp()
    with contextlib.suppress(EnvironmentSpecError):
        lines = list(requirements.Reader(root).lines(line, root / "file"))
        assert all(isinstance(item, str) for item in lines)
