"""`mlflow-compute env`, as typed."""

import json
import subprocess

import pytest

from tests.bed.runs import run_here as run
from tests.bed.server import BIN
from tests.packages.index import add_wheel, serve


@pytest.fixture(autouse=True)
def index(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for version in ("1.0", "2.0"):
        add_wheel(tmp_path / "index", "own", version)
    add_wheel(tmp_path / "index", "mlflow", "3.17.2")
    with serve(tmp_path / "index") as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{address}/simple")
        yield tmp_path / "index"


@pytest.fixture
def listed(project):
    return project("true", python_env_dot_yaml="python: 3.11\ndependencies: [own, mlflow]\n")


def env(*arguments, code=0):
    done = subprocess.run(
        [BIN / "mlflow-compute", "env", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_lock_prints_key_and_files_and_keeps_them_for_the_run(
    server, listed, seen, tmp_path, capfd
):
    key, what, file = env("lock", listed).splitlines()
    assert what == "2 Python packages for linux-64" and file.endswith("/pylock.toml")
    found = seen(run(listed, {}).run_id)
    assert (
        key == f"environment {found.tags['compute.environment']}"
        and "locked" not in capfd.readouterr().err
    )
    copied = json.loads(env("lock", listed, "--output", tmp_path / "out", "--json"))
    assert (
        copied["files"] == [str(tmp_path / "out" / "pylock.toml")]
        and (tmp_path / "out" / "pylock.toml").read_text()
    )
    assert copied["key"] == found.tags["compute.environment"]


def test_refresh_finds_what_is_new_in_the_index(listed, index):
    before = env("lock", listed)
    add_wheel(index, "own", "3.0")
    assert env("lock", listed) == before
    assert env("lock", listed, "--refresh") != before


def test_lock_for_a_target_takes_its_platform(listed, tmp_path):
    (tmp_path / "cwd" / "mlflow-compute.yaml").write_text(
        "targets: {arm: {image: x, platform: linux-aarch64}}\n"
    )
    assert (
        json.loads(env("lock", listed, "--target", "arm", "--json"))["platform"] == "linux-aarch64"
    )
    assert "there is no target 'amr'" in env("lock", listed, "--target", "amr", code=1)


def test_show_lists_the_packages_of_a_project_and_of_a_run(server, listed, seen):
    shown = json.loads(env("show", listed, "--json"))
    assert [(item["name"], item["version"], item["kind"]) for item in shown] == [
        ("mlflow", "3.17.2", "Python index"), ("own", "2.0", "Python index"),
    ]  # fmt: skip
    run_id = run(listed, {}).run_id
    assert json.loads(env("show", "--run", run_id, "--json")) == shown
    assert "own" in env("show", listed).splitlines()[2]
    without = run(listed, {"USE_CONDA": False}).run_id
    assert f"run {without}: has no lock of an environment" in env("show", "--run", without, code=1)


def test_list_and_clean(server, listed, seen):
    run_id = run(listed, {}).run_id
    key = seen(run_id).tags["compute.environment"]
    (entry,) = json.loads(env("list", "--json"))
    assert (
        entry["key"] == key
        and entry["state"] == "ready"
        and not entry["in_use"]
        and entry["size_bytes"] > 1000
    )
    assert key[:12] in env("list")
    assert "there is no cached environment 0000" in env("clean", "0000", code=1)
    assert "pass --size or --all" in env("clean", code=2)
    assert "--size many: is not a size: write a number" in env("clean", "--size", "many", code=1)
    assert env("clean", "--size", "10G") == "0 environments removed, 0 MB freed\n"
    assert (
        env("clean", key[:8]) == f"environment {key[:12]} removed\n"
        and json.loads(env("list", "--json")) == []
    )
    run(listed, {})
    assert (
        env("clean", "--all").startswith("1 environment removed")
        and json.loads(env("list", "--json")) == []
    )


def test_an_environment_that_a_run_uses_is_not_removed(server, listed, seen):
    (listed / "MLproject").write_text("name: x\nentry_points: {main: {command: 'sleep 60'}}\n")
    running = run(listed, {"STREAM_OUTPUT": False}, synchronous=False)
    try:
        from tests.bed.runs import wait_for

        wait_for(
            lambda: any(
                entry["state"] == "ready" and entry["in_use"]
                for entry in json.loads(env("list", "--json"))
            )
        )
        key = json.loads(env("list", "--json"))[0]["key"]
        assert "is in use by a run" in env("clean", key, code=1)
        assert env("clean", "--all").startswith("0 environments removed")
    finally:
        running.cancel()


def test_a_project_that_lists_nothing(project):
    assert "lists no environment" in env("lock", project("true"), code=1)
    assert "\nError: /nowhere: " in env("lock", "/nowhere", code=1)
