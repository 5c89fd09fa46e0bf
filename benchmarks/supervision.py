"""`python -m benchmarks.supervision`: what waiting for many runs costs the API server, and the
controller its memory.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measure import header, show
from benchmarks.run import THERE, use_cluster

RESULTS = Path(__file__).parent / "results-supervision.json"
RUNS = 200
FINISHED_JOBS = 5000
NAMESPACE = "mlflow-bench"
PORT = 18080


def main() -> None:
    access = use_cluster()
    results = {
        **header(1),
        "runs_of_one_client": many_runs(access),
        "controller": controller(access),
    }
    RESULTS.write_text(show(results) + "\n")
    print(show(results))


def many_runs(access) -> dict:
    """200 runs submitted and waited for by this process; requests as the API server counts them,
    and as we made them.
    """
    import mlflow

    from mlflow_backend.places.kubernetes.client.connect import connect
    from tests.cluster import dev

    cluster = connect(access.context, dev.NAMESPACE)
    calls: Counter[str] = Counter()
    cluster.on_call = lambda what: calls.update([what])
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "MLproject").write_text("name: many\nentry_points:\n  main: {command: 'true'}\n")
        config = {**THERE, "STREAM_OUTPUT": False, "resources": {"cpu": "100m"}}
        before, began = counted(access), time.monotonic()
        runs = [
            mlflow.projects.run(
                str(project), backend="compute", backend_config=dict(config), synchronous=False
            )
            for _ in range(RUNS)
        ]
        submitted_s = time.monotonic() - began
        outcomes: list[bool] = []
        waiting = [
            threading.Thread(target=lambda run=run: outcomes.append(run.wait())) for run in runs
        ]
        for thread in waiting:
            thread.start()
        time.sleep(2)
        during = counted(access)
        for thread in waiting:
            thread.join()
        after = counted(access)
    watches = {name: during["watches"][name] - before["watches"][name] for name in ("pods", "jobs")}
    requests = {
        name: after["requests"][name] - before["requests"][name]
        for name in sorted(after["requests"])
    }
    return {
        "runs": RUNS,
        "finished": sum(outcomes),
        "submit_s": round(submitted_s, 1),
        "all_s": round(time.monotonic() - began, 1),
        "open_watches_by_the_api_server": watches,
        "requests_by_the_api_server": {name: count for name, count in requests.items() if count},
        "our_calls_per_run": round(sum(calls.values()) / RUNS, 2),
        "our_calls": dict(calls.most_common(12)),
    }


def counted(access) -> dict:
    """Open watches on pods and Jobs, and requests for Jobs, and lists and creations, from the API
    server's metrics.
    """
    from tests.cluster import dev

    text = dev.kubectl(access, "get", "--raw", "/metrics")
    watches: Counter[str] = Counter()
    for labels, value in re.findall(
        r"^apiserver_longrunning_requests\{(.*?)\} (\d+)", text, re.MULTILINE
    ):
        found = dict(re.findall(r'(\w+)="(.*?)"', labels))
        if found["verb"] == "WATCH":
            watches[found["resource"]] += int(value)
    requests: Counter[str] = Counter()
    for labels, value in re.findall(r"^apiserver_request_total\{(.*?)\} (\d+)", text, re.MULTILINE):
        found = dict(re.findall(r'(\w+)="(.*?)"', labels))
        ours = found["resource"] == "jobs" and found["verb"] in (
            "GET",
            "LIST",
            "POST",
            "DELETE",
            "WATCH",
        )
        if (ours and not found["subresource"]) or (found["resource"], found["verb"]) in (
            ("pods", "LIST"),
            ("events", "LIST"),
            ("configmaps", "POST"),
        ):
            requests[f"{found['verb']} {found['resource']}"] += int(value)
    return {"watches": watches, "requests": requests}


def controller(access) -> dict:
    """Its memory beside 5,000 finished Jobs, and how long it takes until it has listed them."""
    from mlflow_backend.places.kubernetes.client.api import Cluster
    from tests.cluster import dev

    dev.add_namespace(access, NAMESPACE)
    try:
        cluster = Cluster(access.context, NAMESPACE)
        with ThreadPoolExecutor(16) as pool:
            list(
                pool.map(lambda number: cluster.create(finished_job(number)), range(FINISHED_JOBS))
            )
        while (done := _complete(cluster)) < FINISHED_JOBS:
            print(f"{done} of {FINISHED_JOBS} Jobs are complete", file=sys.stderr)
            time.sleep(5)
        return {"finished_jobs": FINISHED_JOBS, **_controller_beside(access)}
    finally:
        dev.kubectl(access, "delete", "namespace", NAMESPACE, "--wait=false")


def finished_job(number: int) -> dict:
    """A Job as we make them, complete at once because it wants no pod."""
    from mlflow_backend.places.kubernetes.objects import manifest
    from mlflow_backend.targets.target import Target
    from mlflow_runner.contract.submission import Archive, Submission

    run_id = f"{number:032x}"
    submission = Submission(run_id, "0", "http://mlflow:5000", "python train.py",
        manifest.PROJECT_DIR, "/mlflow/work/runner", "/c",
                            archive=Archive("0" * 64, "/x"))  # fmt: skip
    identity = manifest.Identity(
        f"finished-{number}",
        "bench",
        "ada",
        "c",
        "bench",
        "http://mlflow:5000/#/x",
        "/home/ada/project",
    )
    job = manifest.job(submission, Target(image="i"), identity, "bundle", None, {})
    job["spec"].update(completions=0, parallelism=0)
    return job


def _complete(cluster) -> int:
    def complete(job):
        return any(
            item["type"] == "Complete" for item in job.get("status", {}).get("conditions") or ()
        )

    return sum(cluster.list_objects("Job", "mlflow-compute/project=bench", complete)[0])


def _controller_beside(access) -> dict:
    command = [
        Path(sys.executable).parent / "mlflow-compute",
        "controller",
        "--namespace",
        NAMESPACE,
        "--port",
        str(PORT),
    ]
    process = subprocess.Popen(command, env={**os.environ, "MALLOC_ARENA_MAX": "2"})
    began = time.monotonic()
    try:
        # it searches when it has listed everything
        while not _ready() or 'call="runs/search"' not in _metrics():
            assert process.poll() is None, "the controller has ended"
            time.sleep(0.1)
        listed_s = time.monotonic() - began
        # its first complete look at what MLflow holds, and some rounds of asking for KILLED runs
        time.sleep(15)
        text = _metrics()
        peak = next(
            line
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        resident = float(re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)[1])
        return {
            "ready_after_s": round(listed_s, 1),
            "resident_mb": round(resident / 1e6),
            "highest_mb": round(int(peak.split()[1]) * 1024 / 1e6),
        }
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _metrics() -> str:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=2).read().decode()
    except OSError:
        return ""


def _ready() -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=2).status == 200
    except OSError:
        return False


if __name__ == "__main__":
    if len(sys.argv) > 1:
        place = use_cluster()
        print(
            json.dumps({"runs": many_runs, "controller": controller}[sys.argv[1]](place), indent=2)
        )
    else:
        main()
