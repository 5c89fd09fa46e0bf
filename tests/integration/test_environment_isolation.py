"""Helper processes of locking and installing import nothing from the folder that a run is started
from.
"""

import subprocess

import pytest

from tests.bed.runs import run_here as run
from tests.bed.server import BIN
from tests.packages.channel import SHORT

SHADOWED = ("asyncio", "logging", "token", "inspect", "json", "hashlib", "rattler")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def conda_project(project, channel):
    text = (
        f"channels: ['{channel.url}']\ndependencies: [python={SHORT}, alpha, {{pip: "
        "[mlflow-skinny<3.18]}]\n"
    )
    return project("true", conda_dot_yaml=text)


def test_modules_of_the_current_folder_neither_run_nor_break_locking(conda_project, tmp_path):
    for name in SHADOWED:
        (tmp_path / "cwd" / f"{name}.py").write_text(
            f"open({str(tmp_path / 'imported')!r}, 'a').write('{name} ')\n"
        )
    done = subprocess.run(
        [BIN / "mlflow-compute", "env", "lock", conda_project],
        cwd=tmp_path / "cwd",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, (tmp_path / "imported").exists()) == (0, False), done.stderr


def test_a_module_on_pythonpath_does_not_take_the_place_of_the_installer(
    server, conda_project, tmp_path, monkeypatch, seen
):
    (tmp_path / "rattler").mkdir()
    (tmp_path / "rattler" / "__init__.py").write_text("raise SystemExit('not the installer')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert seen(run(conda_project, {}).run_id).status == "FINISHED"


def test_an_environment_is_made_with_nothing_of_the_folders_above(
    server, project, tmp_path, monkeypatch, seen
):
    """A temporary folder that others can write to, and variables of an environment that is active."""
    shared = tmp_path / "shared"
    python = shared / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    python.chmod(0o755)
    for name in ("python3", f"python{SHORT}"):
        (python.parent / name).symlink_to("python")
    (shared / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (shared / "uv.toml").write_text("offline = true\nno-cache = true\n")
    (shared / "pyproject.toml").write_text("[tool.uv]\noffline = true\n")
    (shared / ".python-version").write_text("3.99\n")
    (shared / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(shared / "tmp"))
    monkeypatch.setenv("TMPDIR", str(shared / "tmp"))
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.setenv(name, str(shared / ".venv"))
    monkeypatch.setenv("UV_PYTHON", str(python))
    monkeypatch.setenv("UV_WORKING_DIR", str(shared))
    root = project(
        "true", python_env_dot_yaml=f"python: {SHORT}\ndependencies: [six, mlflow-skinny<3.18]\n"
    )
    assert seen(run(root, {}).run_id).status == "FINISHED" and not (tmp_path / "ran").exists()
