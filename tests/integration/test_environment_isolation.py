"""Helper processes of locking and installing import nothing from the folder that a run is started from."""

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
    text = f"channels: ['{channel.url}']\ndependencies: [python={SHORT}, alpha, {{pip: [mlflow-skinny<3.18]}}]\n"
    return project("true", conda_dot_yaml=text)


def test_modules_of_the_current_folder_neither_run_nor_break_locking(conda_project, tmp_path):
    for name in SHADOWED:
        (tmp_path / "cwd" / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('{name} ')\n")
    done = subprocess.run([BIN / "mlflow-compute", "env", "lock", conda_project], cwd=tmp_path / "cwd", capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "imported").exists()) == (0, False), done.stderr


def test_a_module_on_pythonpath_does_not_take_the_place_of_the_installer(server, conda_project, tmp_path, monkeypatch, seen):
    (tmp_path / "rattler").mkdir()
    (tmp_path / "rattler" / "__init__.py").write_text("raise SystemExit('not the installer')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert seen(run(conda_project, {}).run_id).status == "FINISHED"
