"""`python -m benchmarks.compare REVISION`: an earlier revision and this tree, in turn, on the
cluster of `make cluster`.

Each is a process of its own that loads its own code; they take turns, so that a slow moment of the
machine meets both.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import header, show, summary
from benchmarks.run import _project, use_cluster

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results-compare.json"
REPETITIONS = 30
"""More than elsewhere: what is compared differs by milliseconds."""
CHILD = """
import json, sys, time
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/runner"]
import mlflow, mlflow_backend
assert mlflow_backend.__file__.startswith(sys.argv[1]), mlflow_backend.__file__
config = {"COMPUTE": "dev-cluster", "STREAM_OUTPUT": False}
for _ in sys.stdin:
    started, clock = time.time(), time.perf_counter()
    run = mlflow.projects.run(
        sys.argv[2], backend="compute", backend_config=dict(config), synchronous=False
    )
    submitted_s = time.perf_counter() - clock
    run.wait()
    found = {"run_id": run.run_id, "job": run.job_name, "started": started, "submit_s": submitted_s}
    print(json.dumps(found), flush=True)
"""


def main(revision: str) -> None:
    use_cluster()
    import mlflow

    from mlflow_backend.places.kubernetes.client.connect import connect
    from tests.cluster.dev import NAMESPACE

    cluster = connect(None, NAMESPACE)
    measured: dict[str, list[dict]] = {"before": [], "after": []}
    with tempfile.TemporaryDirectory() as directory, at_revision(Path(directory), revision) as tree:
        project = _project(Path(directory))
        children = {"before": _start(tree, project), "after": _start(ROOT, project)}
        try:
            for turn in range(REPETITIONS + 1):
                for name, child in children.items():
                    found = _once(mlflow, cluster, NAMESPACE, child)
                    if turn:  # the first of each warms up
                        measured[name].append(found)
        finally:
            for child in children.values():
                child.stdin.close()
                child.wait(30)
    results = {**header(REPETITIONS), "revision": revision}
    for key in ("submit_s", "first_line_s", "runner_start_s"):
        before, after = (summary([found[key] for found in runs]) for runs in measured.values())
        results[key] = {
            "before": before,
            "after": after,
            "after_over_before": round(after["median"] / before["median"], 3),
        }
    RESULTS.write_text(show(results) + "\n")
    print(show(results))


@contextlib.contextmanager
def at_revision(folder: Path, revision: str) -> Iterator[Path]:
    """A work tree of the revision below `folder`, while the cluster has no admission policies: they
    reject the names of earlier revisions.
    """
    bindings = kubectl("get", "validatingadmissionpolicybinding", "-o", "name").split()
    kubectl("delete", *bindings)
    tree = folder / "earlier"
    add = ["git", "worktree", "add", "--quiet", "--detach", str(tree), revision]
    subprocess.run(add, cwd=ROOT, check=True)
    try:
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
        use_cluster()  # which brings the admission policies back


def kubectl(*arguments: str) -> str:
    return subprocess.run(
        ["kubectl", *arguments], check=True, capture_output=True, text=True
    ).stdout


def _start(tree: Path, project: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(tree), str(project)]
    return subprocess.Popen(
        command, cwd=project.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _once(mlflow, cluster, namespace, child) -> dict:
    from benchmarks.measure import first_line_at

    child.stdin.write("\n")
    child.stdin.flush()
    found = json.loads(child.stdout.readline())
    metrics = mlflow.get_run(found["run_id"]).data.metrics
    found["first_line_s"] = first_line_at(cluster, found["job"]) - found["started"]
    found["runner_start_s"] = metrics["compute/unpack_s"] + metrics["compute/start_s"]
    cluster.delete_job(found["job"], cluster.read_job(found["job"])["metadata"]["uid"])
    kubectl(
        "wait",
        "--for=delete",
        "pod",
        "--selector",
        f"job-name={found['job']}",
        "--namespace",
        namespace,
        "--timeout=60s",
    )
    time.sleep(1)  # what is left of it goes meanwhile, and not while the other revision is measured
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
