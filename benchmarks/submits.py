"""`python -m benchmarks.submits REVISION`: submits per second from 16 threads of one process, of an
earlier revision, of this tree, and of MLflow's own calls for a run alone, in turn, on the cluster
of `make cluster`.

The Jobs' pods wait for a node that does not exist, so that the machine runs the control plane and
MLflow's server only.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.compare import ROOT, at_revision, kubectl
from benchmarks.measure import header, show, summary
from benchmarks.run import _project, use_cluster

RESULTS = Path(__file__).parent / "results-submits.json"
ROUNDS = 5
THREADS = 16
SUBMITS = 48
CHILD = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/runner"]
import mlflow, mlflow_backend
from mlflow.projects.utils import get_or_create_run
assert mlflow_backend.__file__.startswith(sys.argv[1]), mlflow_backend.__file__
project, way, threads, count = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
config = {"COMPUTE": "dev-cluster", "STREAM_OUTPUT": False, "node_selector": {"bench": "none"}}
client = mlflow.tracking.MlflowClient()

def submit(_):
    return mlflow.projects.run(
        project, backend="compute", backend_config=dict(config), synchronous=False
    ).job_name

def alone(_):
    run = get_or_create_run(None, project, "0", project, None, "main", {})
    client.set_tag(run.info.run_id, "mlflow.project.backend", "compute")
    client.set_terminated(run.info.run_id)

one = alone if way == "mlflow" else submit
one(0)
with ThreadPoolExecutor(threads) as pool:
    for _ in sys.stdin:
        began = time.perf_counter()
        jobs = list(pool.map(one, range(count)))
        print(json.dumps({"seconds": time.perf_counter() - began, "jobs": jobs}), flush=True)
"""


def main(revision: str) -> None:
    use_cluster()
    from tests.cluster.dev import NAMESPACE

    rates: dict[str, list[float]] = {"before": [], "after": [], "mlflow": []}
    with tempfile.TemporaryDirectory() as directory, at_revision(Path(directory), revision) as tree:
        project = _project(Path(directory))
        children = {
            name: _start(tree if name == "before" else ROOT, project, name) for name in rates
        }
        try:
            for turn in range(ROUNDS + 1):
                for name, child in children.items():
                    child.stdin.write("\n")
                    child.stdin.flush()
                    found = json.loads(child.stdout.readline())
                    if turn:  # the first of each warms up
                        rates[name].append(SUBMITS / found["seconds"])
                    kubectl("delete", "jobs", "--all", "--namespace", NAMESPACE, "--wait=true")
        finally:
            for child in children.values():
                child.stdin.close()
                child.wait(60)
    results = {**header(ROUNDS), "revision": revision, "threads": THREADS, "submits": SUBMITS}
    results |= {f"{name}_per_s": summary(values) for name, values in rates.items()}
    medians = {name: results[f"{name}_per_s"]["median"] for name in rates}
    results["after_over_before"] = round(medians["after"] / medians["before"], 3)
    results["mlflow_over_after"] = round(medians["mlflow"] / medians["after"], 3)
    RESULTS.write_text(show(results) + "\n")
    print(show(results))


def _start(tree: Path, project: Path, way: str) -> subprocess.Popen:
    arguments = [str(tree), str(project), way, str(THREADS), str(SUBMITS)]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        cwd=project.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
