"""The code and the hint of errors about environments and their solvers."""

import pytest

from mlflow_backend.environment import kinds
from mlflow_backend.environment.parsers.spec import Spec
from mlflow_backend.environment.permissions import Permissions
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.environment.solvers import conda_solver, uv_process
from mlflow_backend.environment.solvers.conda_solver import Problem
from mlflow_backend.errors import EnvironmentSpecError

LINUX = Platform("linux-64", {})


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("conda.yaml", "dependancies: []", "UnknownField"),
        ("conda.yaml", "- a", "InvalidFile"),
        ("conda.yaml", "dependencies: a", "InvalidFile"),
        ("conda.yaml", "dependencies: [a]\nvariables: {A: []}", "InvalidValue"),
        ("conda.yaml", "dependencies: [{npm: []}]", "InvalidRequirement"),
        ("conda.yaml", "dependencies: [{pip: ['numpy = 1']}]", "InvalidRequirement"),
        ("conda.yaml", "dependencies: [{pip: ['-e .']}]", "UnsupportedRequirement"),
        ("conda.yaml", "dependencies: [{pip: [./own]}]", "UnsupportedRequirement"),
        ("conda.yaml", "dependencies: [{pip: [-r none.txt]}]", "NotFound"),
        ("conda.yaml", "dependencies: [{pip: [-r ../x.txt]}]", "UnusableFile"),
        ("conda.yaml", "dependencies: [{pip: [-r .]}]", "UnreadableFile"),
        ("python_env.yaml", "python: '>=4'\ndependencies: [a]", "UnsupportedRequirement"),
        ("python_env.yaml", "dependencies: ['--no-binary a', a]", "UnsupportedRequirement"),
        ("python_env.yaml", "dependencies: ['a @ https://${NOT_SET}/x']", "MissingSetting"),
        ("conda-lock.yml", "version: 2", "InvalidLock"),
        ("pylock.toml", "lock-version = '2.0'\npackages = []", "InvalidLock"),
        ("uv.lock", "version = 1", "NotFound"),
    ],
)
def test_an_environment_file_that_cannot_be_used_has_a_code(tmp_path, name, text, code):
    (tmp_path / name).write_text(text)
    file = kinds.detect(tmp_path, {})
    with pytest.raises(EnvironmentSpecError) as error:
        file.lock(LINUX, "3", Permissions(False, ()), False)
    assert error.value.code == code
    assert name in error.value.message


@pytest.mark.parametrize(
    ("stderr", "code"),
    [
        ("error: No solution found when resolving dependencies\n  cause: x", "NoSolution"),
        ("error: No solution found\nhint: An index URL (x) (401 Unauthorized)", "IndexDenied"),
        ("error: Failed to fetch: https://a.example\n cause: 500", "IndexUnavailable"),
        ("error: unexpected", "SolverFailed"),
        ("", "SolverFailed"),
        ("error: x\nhint: Wheels are required for `own` (...)", "UnsupportedRequirement"),
    ],
)
def test_an_error_of_uv_has_a_code(tmp_path, stderr, code):
    error = uv_process._error(stderr, tmp_path, tmp_path / "python_env.yaml")
    assert error.code == code
    assert bool(error.hint) == (code == "UnsupportedRequirement")


def test_a_long_explanation_of_uv_is_its_start_and_its_end(tmp_path):
    stderr = "error: first\n" + "".join(f"line {number}\n" for number in range(1, 21))
    lines = uv_process._error(stderr, tmp_path, tmp_path / "x").message.splitlines()
    assert len(lines) == uv_process.MOST_LINES
    assert lines[0].endswith(": first")
    assert lines[1:3] == ["  (12 lines omitted)", "line 13"]


@pytest.mark.parametrize(
    ("problem", "code", "hint"),
    [
        (Problem("channel", "status 401 Unauthorized"), "IndexDenied", "set a login"),
        (Problem("channel", "connection refused"), "IndexUnavailable", "set a mirror"),
        (Problem("match spec", "'a ==='"), "InvalidRequirement", "write a match spec"),
        (Problem("other", "Killed"), "SolverFailed", ""),
        (Problem("unsolvable", "x"), "NoSolution", ""),
        (
            Problem("unsolvable", "No candidates were found for tol *.", ["tool"], {}),
            "NoSolution",
            "did you mean 'tool'?",
        ),
        (
            Problem("unsolvable", "No candidates were found for tol 9.*.", [], {"tol": ["1", "2"]}),
            "NoSolution",
            "available versions of tol: 1, 2",
        ),
    ],
)
def test_a_problem_of_rattler_has_a_code_and_a_hint(tmp_path, problem, code, hint):
    spec = Spec(tmp_path / "conda.yaml", conda=("tol",))
    error = conda_solver._error(problem, spec, ["https://a.example/own"], LINUX)
    assert error.code == code
    assert error.hint.startswith(hint)
    assert bool(error.hint) == bool(hint)


def test_the_nearest_channel_is_the_hint(tmp_path):
    spec = Spec(tmp_path / "conda.yaml", conda=("tool",))
    problem = Problem("channel", "404 Not Found")
    error = conda_solver._error(problem, spec, ["https://a.example/conda-fogre"], LINUX)
    assert (error.code, error.hint) == ("NotFound", "did you mean 'conda-forge'?")
