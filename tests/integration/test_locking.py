"""Locking with real uv and an index of this machine: what it reads, what it runs, and what a lock
may hold.
"""

import concurrent.futures
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.version import VERSION

from mlflow_backend.environment import kinds, locks
from mlflow_backend.environment.lock_files import pylock
from mlflow_backend.environment.permissions import HERE, Permissions
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_backend.progress import Progress
from mlflow_runner.contract.submission import RATTLER_AUTH
from tests.bed.runs import wait_for
from tests.bed.server import BIN
from tests.packages.index import add_sdist, add_wheel, serve

LINUX = Platform("linux-64", {"__glibc": "2.28"})
CLUSTER = Permissions(builds=False, credential_hosts=())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mlflow-compute"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of packages, served as the user's own index."""
    add_wheel(tmp_path / "index", "mlflow", VERSION)
    with serve(tmp_path / "index") as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{address}/simple")
        yield tmp_path / "index"


@pytest.fixture
def lock(tmp_path):
    """Lock a project with these files; names and texts of the lock's packages."""
    root = tmp_path / "project"
    root.mkdir()

    def call(*dependencies, permissions=CLUSTER, **files):
        for name, content in files.items():
            (root / name.replace("__", ".")).write_text(content)
        if dependencies:
            (root / "python_env.yaml").write_text(
                json.dumps({"python": "3.11", "dependencies": list(dependencies)})
            )
        kept = locks.obtain(root, {}, LINUX, permissions, Progress())
        return pylock.read(kept.files["pylock.toml"].read_text(), "lock")["packages"]

    call.root = root
    return call


def names(packages):
    return [package["name"] for package in packages]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def problem(function, *arguments, **keywords):
    with pytest.raises(EnvironmentSpecError) as error:
        function(*arguments, **keywords)
    return str(error.value)


def traces(tmp_path):
    path = tmp_path / "traces"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("static", [True, False])
def test_locking_for_a_cluster_runs_no_build(index, lock, tmp_path, static):
    add_sdist(index, "own", "1.0", tmp_path / "traces", static)
    text = problem(lock, "own", "mlflow")
    assert text.splitlines()[-2:] == [
        "own: has no wheel, and packages are not built on this machine for a cluster",
        (
            "set 'allow_builds: true' in the target, or run mlflow-compute env lock --target NAME "
            "--allow-builds"
        ),
    ]
    assert traces(tmp_path) == []


@pytest.mark.parametrize(
    "option",
    ["--no-binary own", "--no-binary :all:", "--no-binary=own,mlflow", "--only-binary :none:"],
)
def test_no_option_of_a_project_brings_builds_back(index, lock, tmp_path, option):
    add_sdist(index, "own", "1.0", tmp_path / "traces")
    assert "'allow_builds: true' in the target" in problem(lock, option, "own", "mlflow")
    assert traces(tmp_path) == []


@pytest.mark.parametrize(
    "setting",
    [
        "no-binary-package = ['own']",
        "[pip]\nno-binary = ['own']",
        "no-build = false",
        "[pip]\nonly-binary = []",
    ],
)
def test_no_setting_brings_builds_back(index, lock, tmp_path, setting, monkeypatch):
    """What the user set for packages of an own index would hold for those of a project's."""
    add_sdist(index, "own", "1.0", tmp_path / "traces")
    (tmp_path / "uv.toml").write_text(setting)
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("UV_NO_BINARY_PACKAGE", "own")
    monkeypatch.setenv("UV_NO_BUILD", "0")
    problem(lock, "own", "mlflow")
    assert traces(tmp_path) == []


def test_a_repository_is_read_and_not_built(index, lock, tmp_path):
    add_sdist(index, "own", "1.0", tmp_path / "traces")
    subprocess.run(["tar", "-xzf", index / "simple/own/own-1.0.tar.gz", "-C", tmp_path], check=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@a"]
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["commit", "--quiet", "-m", "x"],
        ["update-server-info"],
    ):
        subprocess.run([*git, *command], cwd=tmp_path / "own-1.0", check=True)
    with serve(tmp_path / "own-1.0") as address:
        assert "own: has no wheel" in problem(lock, f"own @ git+{address}/.git", "mlflow")
        assert traces(tmp_path) == []
        project = tmp_path / "own-1.0" / "pyproject.toml"
        project.write_text(project.read_text() + "[project]\nname = 'own'\nversion = '1.0'\n")
        for command in (["commit", "--quiet", "-am", "static"], ["update-server-info"]):
            subprocess.run([*git, *command], cwd=tmp_path / "own-1.0", check=True)
        assert names(lock(f"own @ git+{address}/.git", "mlflow")) == ["mlflow", "own"], (
            "metadata that is written down needs no build"
        )
    assert traces(tmp_path) == []


def test_builds_that_are_allowed_see_no_login(index, lock, tmp_path, monkeypatch):
    add_sdist(index, "own", "1.0", tmp_path / "traces")
    for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "sesame")
    assert names(lock("own", "mlflow", permissions=HERE)) == ["mlflow", "own"]
    (first, *_) = traces(tmp_path)
    assert "sesame" not in str(first) and "PATH" in first


def test_a_lock_that_was_made_with_builds_serves_a_cluster_too(index, lock, tmp_path):
    add_sdist(index, "own", "1.0", tmp_path / "traces")
    target = "targets: {c: {image: x}}\n"
    (tmp_path / "cwd" / "mlflow-compute.yaml").write_text(target)
    problem(lock, "own", "mlflow")
    command = [BIN / "mlflow-compute", "env", "lock", lock.root, "--target", "c"]
    assert subprocess.run(command, capture_output=True).returncode == 1
    done = subprocess.run([*command, "--allow-builds"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count = len(traces(tmp_path))
    assert count > 0 and subprocess.run(command, capture_output=True).returncode == 0
    assert len(traces(tmp_path)) == count


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A folder for temporary files and the cache with everything that uv looks for in the folders
    above its own.
    """
    folder = tmp_path / "everybodys"
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho ran >>{folder}/ran\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / ".venv" / "bin" / "python3").symlink_to("python")
    (folder / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (folder / "uv.toml").write_text('index-url = "http://127.0.0.1:9/evil/simple"\n')
    (folder / ".python-version").write_text("3.99\n")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "w"\nversion = "1"\n[tool.uv.workspace]\nmembers = ["**"]\n'
        '[[tool.uv.index]]\nurl = "http://127.0.0.1:9/evil/simple"\ndefault = true\n'
    )
    (folder / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT"):
        monkeypatch.setenv(name, str(folder / ".venv"))
    return folder


def test_nothing_in_a_folder_above_is_read_or_run(index, lock, hostile, monkeypatch, tmp_path):
    address = os.environ["UV_DEFAULT_INDEX"]
    (tmp_path / "config" / "uv").mkdir(parents=True)
    (tmp_path / "config" / "uv" / "uv.toml").write_text(f"index-url = '{address}'\n")
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    for permissions in (HERE, CLUSTER):
        assert names(lock("mlflow", permissions=permissions)) == ["mlflow"], (
            "the user's own uv.toml counts"
        )
    assert not (hostile / "ran").exists()


def test_nothing_above_or_in_the_project_chooses_what_a_uv_lock_gives(index, hostile, lock):
    lock.root.rmdir()
    root = hostile / "clone"
    root.mkdir()
    lock.root = root
    pyproject = (
        '[project]\nname = "own"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies '
        '= ["mlflow"]\n'
    )
    (root / "pyproject.toml").write_text(pyproject + "[tool.uv.workspace]\n")
    subprocess.run(
        [BIN / "uv", "lock", "-q", "--no-config", "--python", sys.executable], cwd=root, check=True
    )
    (hostile / "ran").unlink(missing_ok=True)
    (root / "pyproject.toml").write_text(
        pyproject + ('[[tool.uv.index]]\nurl = "http://127.0.0.1:9/evil"\ndefault = true\n')
    )
    (root / "uv.toml").write_text('index-url = "http://127.0.0.1:9/evil/simple"\n')
    kept = locks.obtain(root, {}, LINUX, CLUSTER, Progress())
    assert names(pylock.read(kept.files["pylock.toml"].read_text(), "lock")["packages"]) == [
        "mlflow"
    ]
    assert kept.environment.index == os.environ["UV_DEFAULT_INDEX"]
    assert not (hostile / "ran").exists() and not (root / ".venv").exists()


def test_a_hash_that_is_asked_for_is_compared(index, lock):
    wheel = add_wheel(index, "own", "1.0")
    assert names(lock(f"own==1.0 --hash=sha256:{sha256(wheel)}", "mlflow")) == ["mlflow", "own"]
    text = problem(lock, f"own==1.0 --hash=sha256:{'0' * 64}", "mlflow")
    assert text.endswith(
        "python_env.yaml: own: no file of the index has one of the hashes in the file: compare the "
        "index's file with the one that was hashed, then correct --hash (sha256)"
    )
    limits = f"own==1.0 --hash=sha256:{'0' * 64}\n"
    assert "own: no file of the index has one of the hashes" in problem(
        lock, "own", "mlflow", "-c limits.txt", limits__txt=limits
    )


def test_only_the_files_that_were_hashed_are_kept(index, lock, tmp_path):
    wheel = add_wheel(index, "own", "1.0")
    source = add_sdist(index, "own", "1.0", tmp_path / "traces")
    (_, both) = lock("own==1.0", "mlflow", permissions=HERE)
    assert "sdist" in both and len(both["wheels"]) == 1
    (_, one) = lock(
        f"own==1.0 --hash=sha256:{sha256(wheel)} --hash=sha256:{'0' * 64}",
        "mlflow",
        permissions=HERE,
    )
    assert "sdist" not in one and len(one["wheels"]) == 1
    (_, other) = lock(f"own==1.0 --hash=sha256:{sha256(source)}", "mlflow", permissions=HERE)
    assert "sdist" in other and "wheels" not in other


def test_require_hashes_wants_one_for_each_package(index, lock):
    own, mlflow = (
        add_wheel(index, "own", "1.0", requires=["mlflow"]),
        next((index / "simple" / "mlflow").glob("*.whl")),
    )
    line = f"own==1.0 --hash=sha256:{sha256(own)}"
    assert "--require-hashes: no hash for mlflow: list each package" in problem(
        lock, "--require-hashes", line
    )
    assert names(
        lock("--require-hashes", line, f"mlflow=={VERSION} --hash=sha256:{sha256(mlflow)}")
    ) == ["mlflow", "own"]


def test_a_file_by_its_address_is_compared_too(index, lock):
    wheel = add_wheel(index, "own", "1.0")
    address = f"{os.environ['UV_DEFAULT_INDEX']}/own/{wheel.name}"
    assert names(lock(f"{address} --hash=sha256:{sha256(wheel)}", "mlflow")) == ["mlflow", "own"]
    assert "own: no file of the index has one of the hashes" in problem(
        lock, f"own @ {address} --hash=sha256:{'1' * 64}", "mlflow"
    )
    assert "own: no file of the index has one of the hashes" in problem(
        lock, f"{address} --hash=sha256:{'1' * 64}", "mlflow"
    )


def test_first_submits_of_one_project_at_once_solve_it_once(index, lock, capfd):
    (lock.root / "python_env.yaml").write_text("dependencies: [mlflow]\n")
    command = [BIN / "mlflow-compute", "env", "lock", lock.root]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, answers
    assert sum("locked python_env.yaml" in stderr for _, stderr in answers) == 1
    assert len({stdout for stdout, _ in answers}) == 1


def test_a_lock_that_another_process_kept_meanwhile_is_taken(lock, cache):
    """Where files cannot be locked, several solve and store at once."""
    place = cache / "locks" / "address"
    place.parent.mkdir(parents=True)
    found = kinds.Lock("linux-64", "3.11")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(locks._store, place, found, ()) for _ in range(400)]:
            future.result()
    assert locks._load(place, lock.root).environment.key == found.key
    assert [path.name for path in place.parent.iterdir()] == ["address"]


def test_variables_in_addresses_reach_only_allowed_hosts(index, lock, tmp_path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setenv("API_KEY", "sesame")
    monkeypatch.setenv("UV_INDEX_OWN_PASSWORD", "sesame")
    with serve(tmp_path / "index", name="localhost", asked=asked) as other:
        for name in ("API_KEY", "UV_INDEX_OWN_PASSWORD", "HOME", "PATH"):
            text = problem(lock, f"--index-url {other}/simple/${{{name}}}", "mlflow")
            assert "variables are not filled in for localhost" in text
        assert asked == []
        monkeypatch.delenv("UV_DEFAULT_INDEX")
        problem(lock, f"--index-url {other}/simple/${{API_KEY}}", "mlflow", permissions=HERE)
        assert asked == ["/simple/sesame/mlflow/"]


def test_a_login_in_a_variable_is_in_no_file_and_no_error(lock, tmp_path, monkeypatch, cache):
    add_wheel(tmp_path / "private", "mlflow", VERSION)
    monkeypatch.setenv("U", "ada")
    monkeypatch.setenv("P", "open-sesame")
    with serve(tmp_path / "private", login="ada:open-sesame") as address:
        line = f"--index-url {address.replace('://', '://${U}:${P}@')}/simple"
        (lock.root / "python_env.yaml").write_text(
            json.dumps({"python": "3.11", "dependencies": [line, "mlflow"]})
        )
        kept = locks.obtain(lock.root, {}, LINUX, HERE, Progress())
        assert b"open-sesame" in kept.secrets()["MLFLOW_COMPUTE_NETRC"]
        assert kept.environment.index == f"{address}/simple" and "sesame" not in repr(kept)
        assert "sesame" not in problem(lock, line, "no-such-package", permissions=HERE)
        assert "sesame" not in problem(
            lock, line.replace(address.rpartition(":")[2], "9"), "mlflow", permissions=HERE
        )
    assert not [
        path for path in cache.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()
    ]


def test_a_login_for_a_channel_is_in_no_file_and_no_error(
    channel, index, tmp_path, monkeypatch, cache
):
    root = tmp_path / "conda"
    root.mkdir()
    monkeypatch.setenv("CONDARC", str(tmp_path / "condarc"))
    monkeypatch.setenv("P", "open-sesame")

    def lock(text):
        (root / "conda.yaml").write_text(text)
        return locks.obtain(root, {}, LINUX, HERE, Progress())

    with serve(channel.folder, login="ada:open-sesame") as address:
        (tmp_path / "condarc").write_text(
            f"channel_alias: {address.replace('://', '://ada:${P}@')}\n"
        )
        for text in (f"channels: ['{address}']\ndependencies: [python, tool]\n", f"channels: ['{address}']\ndependencies: [python, '{address}::tool']\n",
                     (f"channels: ['{address.replace('://', '://ada:${P}@')}']\ndependencies: "
                     "[python, tool, alpha]\n")):  # fmt: skip
            with pytest.raises(EnvironmentSpecError) as error:
                lock(text.replace("tool", "toll"))
            assert "No candidates were found for toll" in str(error.value) and "sesame" not in str(
                error.value
            )
            assert (
                "sesame" not in repr(locked := lock(text + "variables: {A: b}\n"))
                and b"open-sesame" in locked.secrets()[RATTLER_AUTH]
            )
    assert not [
        path for path in cache.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()
    ]


def test_the_default_entry_of_netrc_goes_to_no_index(lock, tmp_path, monkeypatch):
    add_wheel(tmp_path / "private", "mlflow", VERSION)
    (tmp_path / "netrc").write_text("default login ada password sesame\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serve(tmp_path / "private", login="ada:sesame") as address:
        assert "401" in problem(lock, f"--index-url {address}/simple", "mlflow")


def test_a_stopped_command_leaves_no_folder_behind(tmp_path, lock, cache, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (lock.root / "python_env.yaml").write_text("dependencies: [mlflow]\n")
    with serve(tmp_path, hang=True) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{address}/simple")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            command = [BIN / "mlflow-compute", "env", "lock", lock.root]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
            wait_for(lambda: list((cache / "scratch").glob("*/requirements.in")))
            os.killpg(process.pid, number)
            process.communicate(timeout=30)
            assert (
                list((cache / "scratch").iterdir())
                == []
                == [path for path in (tmp_path / "tmp").iterdir() if "mlflow-compute" in path.name]
            )


def test_what_a_killed_process_left_is_removed_after_a_day(index, lock, cache):
    old, young = (
        cache / "scratch" / "mlflow-compute-old",
        cache / "scratch" / "mlflow-compute-young",
    )
    for path in (old, young):
        (path / "netrc").parent.mkdir(parents=True)
        (path / "netrc").write_text("x")
    os.utime(old, (0, 0))
    lock("mlflow")
    assert [path.name for path in (cache / "scratch").iterdir()] == ["mlflow-compute-young"]


def test_a_cache_that_cannot_be_made_is_one_line(lock, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    text = problem(lock, "mlflow")
    assert (
        text.endswith("set XDG_CACHE_HOME to a folder that you can write to") and "\n" not in text
    )


def test_files_of_a_lock_are_private(index, lock, monkeypatch, cache):
    lock("mlflow")
    assert [
        oct(Path(path).stat().st_mode & 0o777) for path in (cache / "scratch", cache / "locks")
    ] == ["0o700"] * 2
