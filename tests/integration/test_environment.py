"""Environments of runs on this machine: a real channel, the real Python index, real solvers."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import uv
import yaml
from mlflow.exceptions import ExecutionException

from tests.bed.runs import LIST_PACKAGES, wait_for
from tests.bed.runs import run_here as run
from tests.packages.channel import SHORT
from tests.packages.index import add_wheel, serve

PIP = "- pip: [six==1.16.0, mlflow-skinny<3.18]\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, but for what the Python index has sent before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mlflow-compute"


@pytest.fixture
def conda_project(project, channel):
    """A project of a conda.yaml with the test channel: its list of packages, further lines, and a
    command.
    """

    def make(packages, more="", command="python s.py", **files):
        text = (
            f"channels: ['{channel.url}']\ndependencies:\n"
            + "".join(f"- {name}\n" for name in packages)
            + more
        )
        return project(
            command,
            head="conda_env: conda.yaml\n",
            conda_dot_yaml=text,
            s_dot_py=LIST_PACKAGES,
            **files,
        )

    return make


def environments(cache):
    return [path for path in (cache / "environments").glob("*/*") if path.is_dir()]


def made(found):
    return found.log.count(b"building it from")


def test_a_conda_environment_without_conda(server, conda_project, seen, channel):
    more = f"{PIP}variables: {{GREETING: hello}}\n"
    command = (
        "python s.py && tool && echo home $TOOL_HOME prefix $CONDA_PREFIX greeting $GREETING && "
        "which python"
    )
    found = seen(run(conda_project([f"python={SHORT}", "beta", "tool"], more, command), {}).run_id)
    assert (
        b"'alpha', " in found.log
        and b"'six'" in found.log
        and b"'mlflow-skinny'" in found.log
        and b"'kubernetes'" not in found.log
    )
    assert b"tool 3.1\n" in found.log and b"greeting hello\n" in found.log
    key = found.tags["compute.environment"]
    assert found.log.count(key.encode() + b" prefix") == 1, "activation scripts of packages run"
    assert f"{key}/bin/python\n".encode() in found.log
    assert {
        "compute/solve_s",
        "compute/environment_s",
        "compute/environment_conda_s",
        "compute/environment_pip_s",
    } <= set(found.metrics)


def test_the_lock_is_kept_with_the_run_in_the_formats_of_other_tools(
    server, conda_project, seen, tmp_path
):
    import rattler

    found = seen(run(conda_project([f"python={SHORT}", "beta"], PIP), {}).run_id)
    for name in ("conda-lock.yml", "pylock.toml"):
        (tmp_path / name).write_bytes(found.artifact(f"environment/{name}"))

    async def names():
        environment = rattler.LockFile.from_path(tmp_path / "conda-lock.yml").default_environment()
        return {
            record.name.normalized
            for record in environment.conda_repodata_records_for_platform(
                environment.platforms()[0]
            )
        }

    assert asyncio.run(names()) == {"python", "python_abi", "alpha", "beta"}
    target = ["--target", str(tmp_path / "there"), "--python", sys.executable]
    told = subprocess.run(
        [uv.find_uv_bin(), "pip", "install", *target, "-r", "pylock.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0 and "six==1.16.0" in told.stderr, told.stderr


def test_the_same_packages_have_the_same_key_however_they_are_written(
    server, conda_project, seen, channel
):
    first = seen(run(conda_project([f"python={SHORT}", "beta", "tool"], PIP), {}).run_id)
    other = "- pip:\n  - mlflow-skinny < 3.18  # it must be\n  - six == 1.16.0\n"
    second = seen(
        run(
            conda_project(
                [
                    "tool >=3",
                    f"{channel.url}::beta",
                    f"python={SHORT}.*",
                    "no-such-package  # [osx]",
                ],
                other,
            ),
            {},
        ).run_id
    )
    assert first.tags["compute.environment"] == second.tags["compute.environment"]
    assert made(first) == 1 and made(second) == 0


def test_a_lock_is_kept_until_its_file_changes(server, conda_project, capfd):
    root = conda_project([f"python={SHORT}", "alpha"], PIP)
    for count in (1, 0):
        run(root, {})
        assert (
            capfd.readouterr().err.count("locked conda.yaml for linux-64: 3 conda packages and")
            == count
        )
    conda_project([f"python={SHORT}", "alpha<2"], PIP)
    run(root, {})
    assert "locked conda.yaml" in capfd.readouterr().err


def test_a_forgotten_mlflow_is_added_in_the_clients_version(server, project, seen, capfd):
    root = project(
        "python s.py",
        python_env_dot_yaml="dependencies: [six==1.16.0]\n",
        s_dot_py="import mlflow; print('V', mlflow.__version__)",
    )
    found = seen(run(root, {}).run_id)
    assert f"V {mlflow.__version__}\n".encode() in found.log
    assert (
        f"python_env.yaml does not list mlflow: adding mlflow=={mlflow.__version__}"
        in capfd.readouterr().err
    )


def test_a_pinned_mlflow_is_kept_with_a_warning_where_the_server_is_older(
    server, project, tmp_path, monkeypatch, capfd, seen
):
    folder = tmp_path / "index"
    for version in ("2.9.0", "99.1.0"):
        add_wheel(folder, "mlflow", version)
    with serve(folder) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{address}/simple")
        for version, warned in (("2.9.0", False), ("99.1.0", True)):
            env = f"dependencies: ['mlflow=={version}']\n"
            root = project(
                "python s.py",
                python_env_dot_yaml=env,
                s_dot_py="import mlflow; print('V', mlflow.__version__)",
            )
            found = seen(run(root, {}).run_id)
            assert f"V {version}\n".encode() in found.log
            assert (
                f"newer than the tracking server's {mlflow.__version__}" in capfd.readouterr().err
            ) == warned


def test_use_conda_false_and_env_manager_local_take_this_environment(server, project, seen):
    root = project(
        "python s.py", python_env_dot_yaml="dependencies: [six==1.16.0]\n", s_dot_py=LIST_PACKAGES
    )
    for config, manager in (({"USE_CONDA": "False"}, None), ({}, "local")):
        found = seen(run(root, config, env_manager=manager).run_id)
        assert b"'kubernetes'" in found.log and "compute.environment" not in found.tags


def test_locks_are_taken_as_they_are(server, project, seen, channel, capfd):
    pip = [uv.find_uv_bin(), "pip", "compile", "-q", "--format", "pylock.toml", "-"]
    text = subprocess.run(
        pip,
        input="six==1.15.0\nmlflow-skinny==3.17.2\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = seen(
        run(
            project("python s.py", name="exact", pylock_dot_toml=text, s_dot_py=LIST_PACKAGES), {}
        ).run_id
    )
    assert b"'six'" in found.log and b"'mlflow-skinny'" in found.log

    pyproject = (
        '[project]\nname = "own"\nversion = "1"\nrequires-python = '
        f'">={SHORT}"\ndependencies = ["six==1.14.0"]\n'
    )
    root = project(
        "python s.py",
        name="uvlock",
        pyproject_dot_toml=pyproject,
        s_dot_py="import six; print('SIX', six.__version__)",
    )
    subprocess.run([uv.find_uv_bin(), "lock", "-q"], cwd=root, check=True)
    (root / "python_env.yaml").write_text("dependencies: [six==1.16.0]\n")
    found = seen(run(root, {}).run_id)
    assert b"SIX 1.14.0" in found.log, "a lock goes before what MLflow looks for by itself"
    assert "uv.lock does not list mlflow" in capfd.readouterr().err
    (root / "MLproject").write_text(
        "name: uvlock\npython_env: python_env.yaml\nentry_points:\n  main: {command: python s.py}\n"
    )
    assert b"SIX 1.16.0" in seen(run(root, {}).run_id).log, (
        "what MLproject names goes before a lock"
    )


def test_a_conda_lock_with_pip_packages(server, conda_project, project, seen, tmp_path):
    made_by_us = seen(run(conda_project([f"python={SHORT}", "beta"], PIP), {}).run_id)
    wheel = add_wheel(tmp_path / "index", "own", "1.5")
    with serve(tmp_path / "index") as address:
        entry = {
            "name": "own", "version": "1.5", "manager": "pip", "platform": "linux-64", "dependencies": {}, "category": "main", "optional": False,
            "url": f"{address}/simple/own/{wheel.name}", "hash": {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()},
        }  # fmt: skip
        lock = yaml.safe_load(made_by_us.artifact("environment/conda-lock.yml"))
        lock["package"].append(entry)
        root = project(
            "python s.py", name="locked", s_dot_py="import own, beta; print('OWN', own.__version__)"
        )
        (root / "conda-lock.yml").write_text(yaml.safe_dump(lock))
        assert b"OWN 1.5" in seen(run(root, {}).run_id).log


@pytest.mark.parametrize(
    ("packages", "more", "words"),
    [
        (["beta", "gamma"], "", ["cannot be solved for linux-64 from file://", "alpha", "gamma"]),
        (["betta"], "", ["No candidates were found for betta", "did you mean 'beta'?"]),
        (["python=3.99"], "", ["python", f"available versions of python: {SHORT}."]),
        (["future"], "", ["__glibc"]),
        (["alpha ===x"], "", ["alpha ===x", "write a match spec such as"]),
        (["python", "alpha"], "- pip: [six==99]\n", ["six==99", "no version of six"]),
        (
            ["python", "alpha"],
            "- pip: ['pandas>=2.2', 'numpy<1.20']\n",
            ["pandas", "numpy<1.20", "unsatisfiable"],
        ),
        (
            ["python"],
            "- pip: [no-such-package-anywhere]\n",
            ["no-such-package-anywhere was not found"],
        ),
    ],
)
def test_what_cannot_be_solved_is_explained_in_ten_lines_before_a_run_exists(
    server, conda_project, packages, more, words
):
    before = mlflow.search_runs(["0"])
    with pytest.raises(ExecutionException) as error:
        run(conda_project(["tool", *packages], more), {})
    text = str(error.value)
    assert "conda.yaml: " in text and all(word in text for word in words), text
    assert len(text.splitlines()) <= 11
    assert len(mlflow.search_runs(["0"])) == len(before)


def test_a_channel_that_is_not_there_is_named(server, project, tmp_path, monkeypatch):
    monkeypatch.setenv("CONDARC", str(tmp_path / "condarc"))
    (tmp_path / "condarc").write_text(f"channel_alias: {tmp_path.as_uri()}\n")
    root = project("true", conda_dot_yaml="channels: [conda-fogre]\ndependencies: [tool]\n")
    with pytest.raises(
        ExecutionException,
        match=r"channel file:.*/conda-fogre cannot be read: .*: did you mean 'conda-forge'\?$",
    ):
        run(root, {})


@pytest.mark.parametrize(
    ("channel", "reason", "advice"),
    [
        ("http://127.0.0.1:9/x", "Connection refused", ("set a mirror in .condarc (channel_alias, "
                                                       "custom_channels), list the packages below "
                                                       "'pip:', "
         "or use the active environment with --env-manager local")),
        ("{closed}", "401 Unauthorized", ("set a login for it in .netrc, or in the channel's URL in "
                                         ".condarc")),
    ],
)  # fmt: skip
def test_a_channel_that_does_not_answer_is_explained_in_one_line(
    server, project, tmp_path, channel, reason, advice
):
    with serve(tmp_path, login="ada:sesame") as closed:
        root = project(
            "true",
            conda_dot_yaml=f"channels: ['{channel.format(closed=closed)}']\ndependencies: [tool]\n",
        )
        with pytest.raises(ExecutionException) as error:
            run(root, {})
    text = str(error.value)
    assert reason in text and text.endswith(f": {advice}") and "\n" not in text


def test_a_lock_for_another_platform_is_refused_with_what_to_type(server, project):
    text = (
        "version: 1\nmetadata: {}\npackage:\n- {name: a, version: 1, manager: conda, platform: "
        "osx-arm64, url: https://a.example/noarch/a-1-0.conda}\n"
    )
    root = project("true")
    (root / "conda-lock.yml").write_text(text)
    with pytest.raises(
        ExecutionException,
        match="is for osx-arm64, and the run needs linux-64: conda-lock lock --platform linux-64",
    ):
        run(root, {})


def test_a_python_that_is_not_available_fails_the_run_and_says_which_there_is(
    server, project, last_run
):
    root = project("true", python_env_dot_yaml="python: 3.99\ndependencies: [six, mlflow-skinny]\n")
    with pytest.raises(ExecutionException):
        run(root, {})
    found = last_run()
    assert (
        found.cause == "EnvironmentError"
        and (f"Python 3.99 is not available: the image has {SHORT}.")
        in found.tags["compute.message"]
    )


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A Python index of the test's own with two packages; where files may be changed."""
    folder = tmp_path / "index"
    add_wheel(folder, "mlflow", "3.17.2")
    wheel = add_wheel(folder, "own", "1.0")
    with serve(folder) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{address}/simple")
        yield wheel


def test_a_file_that_is_not_what_was_locked_is_refused_by_name(
    server, project, index, last_run, cache
):
    root = project("true", python_env_dot_yaml="dependencies: [own, mlflow]\n")
    run(root, {})
    for folder in (cache / "environments", cache / "uv"):
        subprocess.run(["rm", "-rf", folder], check=True)
    add_wheel(index.parents[2], "own", "1.0", content=b"# another\n")
    with pytest.raises(ExecutionException):
        run(root, {})
    found = last_run()
    assert (found.status, found.cause) == ("FAILED", "EnvironmentError")
    assert b"Hash mismatch for `own==1.0`" in found.log and not list(
        cache.rglob("*/environments/*/*.json")
    )


def test_a_conda_file_that_is_not_what_was_locked_is_refused_by_name(
    server, project, tmp_path, last_run, cache
):
    from tests.packages.channel import Channel

    own = Channel(tmp_path / "own")
    archive = own.add("tool", "1.0", {"bin/tool": b"#!/bin/sh\necho one\n"})
    own.add("mlflow", "3.17.2", {"share/mlflow": b""})
    own.index()
    root = project(
        "tool", conda_dot_yaml=f"channels: ['{own.url}']\ndependencies: [tool, mlflow]\n"
    )
    run(root, {})
    subprocess.run(["rm", "-rf", cache / "environments", cache / "conda"], check=True)
    changed = own.add("tool", "1.0", {"bin/tool": b"#!/bin/sh\necho two\n"})
    assert changed == archive
    with pytest.raises(ExecutionException):
        run(root, {})
    found = last_run()
    assert (
        found.cause == "EnvironmentError"
        and b"tool" in found.log
        and b"hash mismatch" in found.log.lower()
    )
    assert b"two" not in found.log


def test_a_login_reaches_the_index_and_nothing_else(
    server, project, tmp_path, monkeypatch, last_run, capfd, cache
):
    folder = tmp_path / "private"
    for name in ("own", "mlflow"):
        add_wheel(folder, name, "1.0")
    with serve(folder, login="ada:sesame") as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{address.replace('://', '://ada:sesame@')}/simple")
        run(
            project("env; cat $NETRC", python_env_dot_yaml="dependencies: [own, mlflow]\n"),
            {"STREAM_OUTPUT": False},
            synchronous=False,
        ).wait()
    found = last_run()
    assert b"sesame" not in found.log.replace(os.environ["UV_DEFAULT_INDEX"].encode(), b""), (
        "but in the user's own variable"
    )
    assert "sesame" not in str(found.tags) and b"sesame" not in found.artifact(
        "environment/pylock.toml"
    )
    assert not [
        path
        for path in (cache / "locks").rglob("*")
        if path.is_file() and b"sesame" in path.read_bytes()
    ]
    assert environments(cache)


def test_a_damaged_environment_is_made_again_once_with_a_warning(
    server, conda_project, seen, cache
):
    root = conda_project([f"python={SHORT}", "alpha", "tool"], PIP)
    run(root, {})
    (place,) = environments(cache)
    (place / "bin").chmod(0o755)
    (place / "bin" / "python").unlink()
    found = seen(run(root, {}).run_id)
    assert (
        b"was modified or damaged in the cache: building it again" in found.log and made(found) == 1
    )
    assert made(seen(run(root, {}).run_id)) == 0


def test_ten_runs_at_once_make_a_new_environment_once(server, conda_project, seen):
    root = conda_project([f"python={SHORT}", "beta", "tool"], PIP)
    runs = [run(root, {"STREAM_OUTPUT": False}, synchronous=False) for _ in range(10)]
    assert all(one.wait() for one in runs)
    found = [seen(one.run_id) for one in runs]
    assert sum(map(made, found)) == 1
    waited = sum(
        b"waiting for another run that is building the same environment" in one.log for one in found
    )
    assert waited >= 1 and len({one.tags["compute.environment"] for one in found}) == 1


def test_a_wait_for_another_run_can_be_cancelled(server, conda_project, seen, cache):
    root = conda_project([f"python={SHORT}", "beta"], PIP)
    run(root, {})
    (place,) = environments(cache)
    Path(f"{place}.json").unlink()
    with open(f"{place}.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = run(root, {"STREAM_OUTPUT": False}, synchronous=False)
        wait_for(
            lambda: (
                waiting._process.poll() is None
                and _logged(seen, waiting.run_id, b"waiting for another run")
            )
        )
        start = time.monotonic()
        waiting.cancel()
    assert time.monotonic() - start < 20
    assert (seen(waiting.run_id).status, seen(waiting.run_id).cause) == ("KILLED", "Cancelled")


def _logged(seen, run_id, words):
    with contextlib.suppress(Exception):
        return words in seen(run_id).log
    return False


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_a_kill_while_an_environment_is_made_harms_no_later_run(
    server, conda_project, seen, cache, fraction
):
    root = conda_project([f"python={SHORT}", "beta", "tool"], PIP)
    first = run(root, {})
    spent = sum(
        value
        for name, value in seen(first.run_id).metrics.items()
        if name.startswith("compute/environment_") and name != "compute/environment_s"
    )
    subprocess.run(["rm", "-rf", cache / "environments", cache / "conda"], check=True)
    killed = run(root, {"STREAM_OUTPUT": False}, synchronous=False)
    wait_for(lambda: environments(cache))
    time.sleep(spent * fraction)
    killed._process.kill()  # which may have ended: the second time is faster, with uv's cache
    killed.wait()
    after = seen(run(root, {}).run_id)
    assert after.status == "FINISHED" and b"'beta'" in after.log


def test_a_full_cache_names_the_volume(server, conda_project, last_run, tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", small]).returncode:
        pytest.skip("only root can mount a small volume")
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(small))
        with pytest.raises(ExecutionException):
            run(conda_project([f"python={SHORT}", "beta"], PIP), {})
        found = last_run()
        assert (found.status, found.cause) == ("FAILED", "EnvironmentError")
        assert (
            f"The volume of the cache {small}/mlflow-compute is full"
            in found.tags["compute.message"]
        )
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_the_least_recently_used_go_first_and_what_is_in_use_stays(
    server, conda_project, seen, cache
):
    from mlflow_runner.environment import cache as caches

    keys = {}
    for name in ("alpha=1.0", "alpha=2.0", "beta"):
        keys[name] = seen(run(conda_project([f"python={SHORT}", name], PIP), {}).run_id).tags[
            "compute.environment"
        ]
    used = run(
        conda_project([f"python={SHORT}", "alpha=1.0"], PIP, command="sleep 60"),
        {"STREAM_OUTPUT": False},
        synchronous=False,
    )
    place = next(path for path in environments(cache) if path.name == keys["alpha=1.0"])
    wait_for(
        lambda: (
            next(item for item in caches.list_entries(str(cache)) if item.path == str(place)).in_use
        )
    )
    os.utime(f"{place}.lock", (0, 0))
    total = caches.usage_bytes(str(cache))
    assert caches.clean(str(cache), total) == (0, 0)
    removed = 0
    while not removed:  # packages that no environment needs go before
        removed, freed = caches.clean(str(cache), caches.usage_bytes(str(cache)) - 1)
        assert freed > 0
    assert removed == 1
    assert {path.name for path in environments(cache)} == {keys["alpha=1.0"], keys["beta"]}
    caches.clean(str(cache), 0)
    assert [path.name for path in environments(cache)] == [keys["alpha=1.0"]]
    used.cancel()
    found = seen(run(conda_project([f"python={SHORT}", "beta"], PIP), {}).run_id)
    assert found.status == "FINISHED" and made(found) == 1, "what was removed is fetched again"


@pytest.mark.parametrize("command", ["sleep 1", "true"])
def test_a_cache_above_its_limit_is_cleaned_beside_the_command_however_short(
    command, server, conda_project, cache, monkeypatch, capfd
):
    from mlflow_backend.places.local import prepare

    run(conda_project([f"python={SHORT}", "alpha=1.0"], PIP), {})
    (first,) = environments(cache)
    monkeypatch.setattr(prepare, "CACHE_BYTES", 1000)
    run(conda_project([f"python={SHORT}", "alpha=2.0"], PIP, command=command), {})
    assert not first.exists() and "Traceback" not in capfd.readouterr().err
