"""Environments of pip packages, made by uv from the real index, for runs on this machine."""

import pytest
from mlflow.exceptions import ExecutionException

from tests.integration.test_local_run import LIST_PACKAGES, run


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_listed_packages_are_there_mlflow_too_and_made_once(server, project, seen, capsys):
    root = project(
        "python s.py",
        head="python_env: env.yaml\n",
        env_dot_yaml="dependencies: [six==1.16.0, mlflow-skinny<3.18]\n",
        s_dot_py=LIST_PACKAGES,
    )
    first = seen(run(root, {}).run_id)
    assert b"'mlflow-skinny'" in first.log and b"'six'" in first.log and b"'kubernetes'" not in first.log
    assert b"installing 2 listed packages" in first.log
    (root / "env.yaml").write_text("dependencies:\n- mlflow-skinny<3.18  # first\n- six==1.16.0\n")
    second = seen(run(root, {}).run_id)
    assert b"installing" not in second.log and second.tags["compute.environment"] == first.tags["compute.environment"]


def test_use_conda_false_and_env_manager_local_take_this_environment(server, project, seen):
    root = project("python s.py", python_env_dot_yaml="dependencies: [six==1.16.0]\n", s_dot_py=LIST_PACKAGES)
    for config, manager in (({"USE_CONDA": "False"}, None), ({}, "local")):
        found = seen(run(root, config, env_manager=manager).run_id)
        assert b"'kubernetes'" in found.log and "compute.environment" not in found.tags


def test_conda_yaml_without_conda(server, project, seen):
    conda = "channels: [conda-forge]\ndependencies:\n- pip\n- pip: [six==1.16.0, mlflow-skinny<3.18]\n"
    found = seen(run(project("python s.py", conda_dot_yaml=conda, s_dot_py=LIST_PACKAGES), {}).run_id)
    assert b"'six'" in found.log


def test_a_package_that_does_not_exist_fails_the_run_and_leaves_no_half_environment(server, project, last_run, fresh_cache):
    root = project("python s.py", python_env_dot_yaml="dependencies: [six==99.0, mlflow-skinny]\n", s_dot_py=LIST_PACKAGES)
    with pytest.raises(ExecutionException):
        run(root, {})
    found = last_run()
    assert (found.status, found.cause) == ("FAILED", "EnvironmentError")
    assert b"six==99.0" in found.log
    assert not list(fresh_cache.rglob(".complete"))


def test_an_entry_that_is_not_supported_yet_is_named_before_a_run_exists(server, project):
    root = project("true", conda_dot_yaml="dependencies: [python=3.11, openblas]\n")
    with pytest.raises(ExecutionException, match="conda package 'openblas' is not supported yet"):
        run(root, {})
