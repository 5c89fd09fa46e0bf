"""`python -m benchmarks.environments`: how long environments take, each beside its alternative in
the same run.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uv

from benchmarks.command_lines import mlflow_command
from benchmarks.measure import header, repeat_in_turn, show, summary
from tests.bed.server import Server
from tests.packages.channel import SHORT, Channel
from tests.packages.index import serve

RESULTS = Path(__file__).parent / "results-environments.json"
REPETITIONS = 5
PIP = ("pandas==2.3.3", "scikit-learn==1.7.2", "mlflow-skinny==3.17.2")
PACKAGES, FILES_EACH = 28, 880
"""About as many packages and files as a usual conda environment of data science: 25,000 files with
CPython.
"""


def main() -> None:
    results = header(REPETITIONS)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        server = Server(folder)
        server.start()
        try:
            with _variables(MLFLOW_TRACKING_URI=server.uri, XDG_CACHE_HOME=str(folder / "cache")):
                for name, measure in (
                    ("pip_cold", _pip_cold),
                    ("conda", _conda),
                    ("second_run", _second_run),
                ):
                    results[name] = _told(name, measure(folder))
        finally:
            server.stop()
        results["pod_warm"] = _told("pod_warm", _pod(folder))
    RESULTS.write_text(show(results) + "\n")
    print(show(results))


@contextlib.contextmanager
def _variables(**values: str):
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _told(name: str, result: dict) -> dict:
    print(name, json.dumps(result), file=sys.stderr, flush=True)
    return result


def _paired(ours: Callable[[], float], theirs: Callable[[], float]) -> dict:
    mine, other = repeat_in_turn(ours, theirs, REPETITIONS, warm_up=0)
    return {
        "ours_s": mine,
        "alternative_s": other,
        "ratio": round(mine["median"] / other["median"], 3),
    }


def _pip_cold(folder: Path) -> dict:
    """Solving here and making there, with every cache empty, against `uv venv` and `uv pip
    install`.
    """
    project = _project(
        folder / "pip",
        {"python_env.yaml": (f"python: '{SHORT}'\ndependencies: {json.dumps(PIP)}\n")},
    )

    def ours() -> float:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        os.environ["UV_CACHE_DIR"] = str(folder / "cache" / "solving")
        metrics = _run(project)
        del os.environ["UV_CACHE_DIR"]
        return metrics["compute/solve_s"] + metrics["compute/environment_s"]

    def theirs() -> float:
        place, env = folder / "plain", {**os.environ, "UV_CACHE_DIR": str(folder / "plain-cache")}
        for path in (place, folder / "plain-cache"):
            shutil.rmtree(path, ignore_errors=True)
        started = time.perf_counter()
        subprocess.run(
            [uv.find_uv_bin(), "venv", "-q", "--python", SHORT, place], env=env, check=True
        )
        subprocess.run(
            [uv.find_uv_bin(), "pip", "install", "-q", "--python", place / "bin/python", *PIP],
            env=env,
            check=True,
        )
        return time.perf_counter() - started

    return _paired(ours, theirs)


def _conda(folder: Path) -> dict:
    channel = Channel(folder / "channel")
    channel.add_python()
    for number in range(PACKAGES):
        files = {
            f"site-packages/p{number}/m{index}.py": f"X = {number * index}\n".encode() * 200
            for index in range(FILES_EACH)
        }
        channel.add_module(f"p{number}", "1.0", **files)
    for version in range(REPETITIONS + 1):
        channel.add_module("variant", f"{version}.0")
    channel.add("mlflow", "3.17.2", {"share/mlflow": b""})
    channel.index()
    with serve(channel.folder) as address:

        def project(variant: int) -> Path:
            names = [
                f"python={SHORT}",
                "mlflow",
                f"variant={variant}.0",
                *(f"p{number}" for number in range(PACKAGES)),
            ]
            return _project(
                folder / "conda",
                {"conda.yaml": f"channels: ['{address}']\ndependencies: {json.dumps(names)}\n"},
            )

        def cold() -> float:
            for name in ("environments", "conda"):
                shutil.rmtree(folder / "cache" / "mlflow-compute" / name, ignore_errors=True)
            return _run(project(0))["compute/environment_s"]

        def theirs() -> float:
            lock = next((folder / "cache" / "mlflow-compute" / "locks").glob("*/conda-lock.yml"))
            for name in ("prefix", "packages"):
                shutil.rmtree(folder / name, ignore_errors=True)
            started = time.perf_counter()
            subprocess.run(
                [
                    sys.executable,
                    Path(__file__).with_name("rattler_alone.py"),
                    lock,
                    folder / "prefix",
                    folder / "packages",
                ],
                check=True,
            )
            return time.perf_counter() - started

        found = {"cold": _paired(cold, theirs)}
        found["files"] = sum(len(files) for _, _, files in os.walk(folder / "prefix"))
        found["new_key_from_warm_packages_s"] = summary(
            [_run(project(number + 1))["compute/environment_s"] for number in range(REPETITIONS)]
        )
        found["warm_s"] = summary(
            [_run(project(1))["compute/environment_s"] for _ in range(REPETITIONS)]
        )
    return found


def _second_run(folder: Path) -> dict:
    """The wall time of `mlflow run` once the environment is there, against MLflow's own manager
    `uv`.
    """
    project = _project(
        folder / "second",
        {"python_env.yaml": (f"python: '{SHORT}'\ndependencies: {json.dumps(PIP)}\n")},
    )
    mlflow = mlflow_command("ours", "--editable", str(Path(__file__).parents[1]))
    env = {**os.environ, "PATH": f"{Path(mlflow).parent}{os.pathsep}{os.environ['PATH']}"}

    def wall(*options: str) -> float:
        started = time.perf_counter()
        done = subprocess.run(
            [mlflow, "run", project, *options], env=env, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return time.perf_counter() - started

    ours = lambda: wall("--backend", "compute")  # noqa: E731
    theirs = lambda: wall("--env-manager", "uv")  # noqa: E731
    ours(), theirs()
    return {
        **_paired(ours, theirs),
        "both_without_environment_s": summary(
            [wall("--env-manager", "local") for _ in range(REPETITIONS)]
        ),
    }


def _pod(folder: Path) -> dict:
    """From the runner's first instruction to the user's command, in a pod whose cache volume has
    the environment.
    """
    from benchmarks.run import THERE, use_cluster
    from tests.cluster import dev

    access = use_cluster()
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    dev.make_volume(access, "bench-cache")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    if not dev.kubectl(access, "get", "storageclass", "-o", "name"):
        claim["storageClassName"] = ""
    text = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "bench-cache"},
        "spec": claim,
    }

    def kubectl(*arguments, **keywords):
        return dev.kubectl(access, "--namespace", dev.NAMESPACE, *arguments, **keywords)

    kubectl("apply", "-f", "-", stdin=json.dumps(text))
    project = _project(
        folder / "pod",
        {"python_env.yaml": (f"python: '{SHORT}'\ndependencies: {json.dumps(PIP)}\n")},
    )
    config = {**THERE, "cache": {"claim": "bench-cache"}}
    try:
        _, *warm = [_run(project, config) for _ in range(REPETITIONS + 1)]
    finally:
        kubectl("delete", "jobs", "--all", "--wait=true")
        kubectl("delete", "pvc", "bench-cache")
        kubectl("delete", "pv", "mlflow-compute-bench-cache", "--ignore-not-found")
    until_command = [
        sum(metrics[f"compute/{name}_s"] for name in ("unpack", "environment", "start"))
        for metrics in warm
    ]
    return {"runner_to_command_s": summary(until_command)}


def _run(project: Path, config: dict | None = None) -> dict:
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    run = mlflow.projects.run(str(project), backend="compute", backend_config=config or {})
    return mlflow.get_run(run.run_id).data.metrics


def _project(root: Path, files: dict[str, str]) -> Path:
    root.mkdir(exist_ok=True)
    (root / "MLproject").write_text("name: bench\nentry_points:\n  main: {command: 'true'}\n")
    for name, text in files.items():
        (root / name).write_text(text)
    return root


if __name__ == "__main__":
    main()
