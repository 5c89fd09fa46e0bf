"""`python -m benchmarks.run`: everything that benchmarks/README.md claims, measured in one go on
the cluster of `make cluster`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import command_lines
from benchmarks.measure import (
    REPETITIONS,
    bare_job,
    first_line_at,
    header,
    repeat,
    repeat_in_turn,
    show,
    summary,
)

RESULTS = Path(__file__).parent / "results.json"
THERE = {"COMPUTE": "dev-cluster"}


def main() -> None:
    access = use_cluster()
    import mlflow

    from mlflow_backend.places.kubernetes.client.api import Cluster
    from tests.cluster.dev import NAMESPACE, RUNNER_IMAGE

    cluster = Cluster(access.context, NAMESPACE)
    results = header(REPETITIONS)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        project = _project(folder)
        bare, ours = repeat_in_turn(
            lambda: _bare(cluster, RUNNER_IMAGE), lambda: _first_line(mlflow, cluster, project)
        )
        results["a_bare_job_to_first_line_s"] = bare
        results["b_submit_to_first_line_s"] = ours
        results["b_over_a"] = round(ours["median"] / bare["median"], 3)
        results["submit"] = _submit(mlflow, project)
        shown, quiet = repeat_in_turn(
            lambda: _wait_after_end(mlflow, folder, True),
            lambda: _wait_after_end(mlflow, folder, False),
        )
        results["wait_after_end_s"], results["quiet_wait_after_end_s"] = shown, quiet
        results["runner"] = _runner(mlflow, folder)
        results["help"] = _help()
        ours = _command(command_lines.ours(project, json.dumps(THERE)))
        results["c_command_line_s"] = ours
        if access.base_image:
            theirs = _command(command_lines.theirs(folder, RUNNER_IMAGE, access.context))
            results["c_command_line_builtin_s"] = theirs
            results["c_over_builtin"] = round(ours["median"] / theirs["median"], 3)
    RESULTS.write_text(show(results) + "\n")
    print(show(results))


def use_cluster():
    from tests.cluster import dev

    access = dev.up()
    for line in (dev.FOLDER / "env").read_text().splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        if name != "PATH":
            os.environ[name] = value.strip("'")
    os.environ["KUBE_MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_TRACKING_URI"]
    return access


def _project(folder: Path, command: str = "echo first", name: str = "bench") -> Path:
    root = folder / name
    root.mkdir(exist_ok=True)
    (root / "MLproject").write_text(
        f"name: {name}\nentry_points:\n  main: {{command: {command!r}}}\n"
    )
    return root


def _bare(cluster, image) -> float:
    name = f"bare-{time.time_ns()}"
    started = time.time()
    uid = cluster.create(bare_job(image, name))["metadata"]["uid"]
    taken = first_line_at(cluster, name) - started
    cluster.delete_job(name, uid)
    return taken


def _first_line(mlflow, cluster, project) -> float:
    started = time.time()
    run = mlflow.projects.run(
        str(project), backend="compute", backend_config=dict(THERE), synchronous=False
    )
    taken = first_line_at(cluster, run.job_name) - started
    cluster.delete_job(run.job_name, cluster.read_job(run.job_name)["metadata"]["uid"])
    return taken


def _submit(mlflow, project) -> dict:
    """The whole call until the Job exists, and MLflow's own share of it: creating a run of a
    project and its tags.
    """
    from mlflow.projects.utils import get_or_create_run

    def whole() -> float:
        started = time.perf_counter()
        run = mlflow.projects.run(
            str(project),
            backend="compute",
            backend_config={**THERE, "STREAM_OUTPUT": False},
            synchronous=False,
        )
        taken = time.perf_counter() - started
        run.wait()
        return taken

    def own() -> float:
        started = time.perf_counter()
        run = get_or_create_run(None, str(project), "0", str(project), None, "main", {})
        mlflow.tracking.MlflowClient().set_tag(run.info.run_id, "mlflow.project.backend", "compute")
        taken = time.perf_counter() - started
        mlflow.tracking.MlflowClient().set_terminated(run.info.run_id)
        return taken

    call, mlflow_own = repeat(whole), repeat(own)
    return {
        "call_s": call,
        "mlflow_own_s": mlflow_own,
        "on_top_s": round(call["median"] - mlflow_own["median"], 3),
    }


def _wait_after_end(mlflow, folder, stream: bool) -> float:
    """From the last thing that the user's process does to the return of wait()."""
    project = _project(folder, "sleep 2; date +%s.%N", "ending")
    config = {**THERE, "STREAM_OUTPUT": stream}
    run = mlflow.projects.run(
        str(project), backend="compute", backend_config=config, synchronous=False
    )
    run.wait()
    returned = time.time()
    return returned - _printed(mlflow, run.run_id)


def _printed(mlflow, run_id) -> float:
    client = mlflow.tracking.MlflowClient()
    artifact = client.list_artifacts(run_id, "logs")[0].path
    return float(Path(client.download_artifacts(run_id, artifact)).read_text().split()[0])


def _runner(mlflow, folder) -> dict:
    """Memory of runner and reporter at their highest, and the time to the user's command, in a
    pod.
    """
    project = _project(folder, "python3 memory.py", "memory")
    (project / "memory.py").write_text(
        "import os, time\ntime.sleep(4)\ntotal = 0\nfor pid in os.listdir('/proc'):\n    if "
        "pid.isdigit() and b'runner.pyz' in open(f'/proc/{pid}/cmdline', 'rb').read():\n        "
        "status = dict(line.split(':', 1) for line in open(f'/proc/{pid}/status'))\n        total "
        "+= int(status['VmHWM'].split()[0])\nprint(total)\n"
    )
    starts, memory = [], []
    for _ in range(REPETITIONS):
        run = mlflow.projects.run(str(project), backend="compute", backend_config=dict(THERE))
        metrics = mlflow.get_run(run.run_id).data.metrics
        starts.append(metrics["compute/unpack_s"] + metrics["compute/start_s"])
        memory.append(_printed(mlflow, run.run_id) / 1024)
    return {"first_instruction_to_command_s": summary(starts), "memory_mb": round(max(memory), 1)}


def _help() -> dict:
    """`mlflow run --help` with the package installed, and what loading its entry point costs."""
    code = (
        "import mlflow.projects, time; started = time.perf_counter(); import importlib.metadata as "
        "m; next(e for e in m.entry_points(group='mlflow.project_backend') if e.name == "
        "'compute').load(); print(time.perf_counter() - started)"
    )
    loads = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(5)
    ]
    return {"entry_point_load_s": summary(loads)}


def _command(command: list[str]) -> dict:
    def once() -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    return repeat(once)


if __name__ == "__main__":
    main()
