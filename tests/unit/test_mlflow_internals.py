"""Each name of MLflow that is not public does what this package relies on."""

import ast
import inspect
import subprocess
import zipfile
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import ExecutionException

from mlflow_backend import mlflow_internals as internals
from tests.bed.odd import OddServer

ROOT = Path(__file__).parents[2]
PROJECT = "name: demo\nentry_points:\n  main: {parameters: {a: int}, command: 'echo {a}'}\n"
USED_HERE = Path(internals.__file__)


def test_the_user_and_the_stored_login(monkeypatch, tmp_path):
    monkeypatch.setenv("LOGNAME", "ada")
    assert internals.user() == "ada"
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert internals.stored_login() == (None, None)
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = ada\nmlflow_tracking_password = pw\n"
    )
    assert internals.stored_login() == ("ada", "pw")


def test_a_get_answers_with_text():
    with OddServer(b"3.1.0") as server:
        response = internals.get(server.uri, "/version", 5)
        assert response.ok and response.text == "3.1.0" and server.asked == ["/version"]


def test_a_status_is_set_in_one_call_and_keeps_the_name_of_the_run(monkeypatch, tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(
        "mlflow.tracking._tracking_service.utils._tracking_uri", client.tracking_uri
    )
    run_id = client.create_run("0", run_name="ada").info.run_id
    internals.set_status(run_id, "SCHEDULED")
    info = client.get_run(run_id).info
    assert (info.status, info.run_name, info.end_time) == ("SCHEDULED", "ada", None)


def test_values_and_paths():
    assert internals.quote("a b") == "'a b'"
    assert internals.local_path("file:///tmp/a%20b") == "/tmp/a b"
    assert internals.local_path("a/b") == "a/b"
    assert internals.tag_names().MLFLOW_USER == "mlflow.user"


def test_what_the_uri_of_a_project_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    assert internals.expand_uri("x") == str(tmp_path / "x")
    assert internals.is_local_uri(str(tmp_path)) and not internals.is_local_uri("git@host:a.git")
    assert internals.is_zip_uri("https://host/a.zip") and not internals.is_zip_uri("https://host/a")
    assert internals.parse_subdirectory("https://host/a#b") == ("https://host/a", "b")


def test_projects_are_fetched_and_loaded(tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    (root / "MLproject").write_text(PROJECT)
    assert internals.fetch_local_project(str(root), None) == str(root)
    entry = internals.load_project(str(root)).get_entry_point("main")
    internals.check_parameters(entry, {"a": 1})
    with pytest.raises(ExecutionException, match="missing parameters"):
        internals.check_parameters(entry, {})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(root / "MLproject", "MLproject")
    file = internals.fetch_zip(str(tmp_path / "a.zip"))
    internals.unzip(file, str(tmp_path / "out"))
    assert (tmp_path / "out" / "MLproject").read_text() == PROJECT


def test_a_repository_is_cloned(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "MLproject").write_text(PROJECT)
    git = ["git", "-C", str(source), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "a"], check=True)
    (tmp_path / "clone").mkdir()
    internals.fetch_git_project(source.as_uri(), "main", str(tmp_path / "clone"))
    assert (tmp_path / "clone" / "MLproject").read_text() == PROJECT


def test_every_function_is_tested():
    text = Path(__file__).read_text()
    functions = [name for name, item in inspect.getmembers(internals, inspect.isfunction)]
    assert functions and all(f"internals.{name}(" in text for name in functions)


def test_nothing_else_uses_what_is_not_public():
    """`mlflow.projects.submitted_run` and the abstract backend are the interface of backends."""
    found = []
    for path in (ROOT / "mlflow_backend").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if path != USED_HERE and isinstance(node, ast.ImportFrom) and node.module:
                private = any(alias.name.startswith("_") for alias in node.names)
                inner = node.module.startswith(
                    ("mlflow.utils", "mlflow.projects.utils", "mlflow.store")
                )
                if node.module.split(".")[0] == "mlflow" and (private or inner):
                    found.append(f"{path}: {node.module}")
    assert not found
