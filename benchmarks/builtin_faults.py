"""`python -m benchmarks.builtin_faults`: what MLflow's own kubernetes backend says of five faults
that tests/faults makes for ours.
"""

import functools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import command_lines
from benchmarks.measure import header, show
from benchmarks.run import use_cluster

RESULTS = Path(__file__).parent / "results-builtin-faults.json"
WATCHED_S = 60.0
EAT = "python3 -c 'import time; time.sleep(4); x = bytearray(200_000_000)'"
LIMIT = "resources: {limits: {memory: 64Mi}}"
HUGE = "resources: {requests: {cpu: 4000}}"


def main() -> None:
    access = use_cluster()
    results = header(1) | {"watched_s": WATCHED_S, "cases": {}}
    for name, command, resources, act in (
        ("memory kill after the client left", EAT, LIMIT, leave),
        ("kubectl delete job", "sleep 600", "", lambda *known: delete_job(access, *known)),
        ("no node takes the pod", "true", HUGE, nothing),
        ("the script exits with 3", "exit 3", "", nothing),
        ("Ctrl-C", "sleep 600", "", interrupt),
    ):
        results["cases"][name] = case(access, command, resources, act)
        print(name, results["cases"][name], flush=True)
    RESULTS.write_text(show(results) + "\n")


def case(access, command: str, resources: str, act: Callable) -> dict:
    """Submit with the built-in backend, make the fault, and look at run and pod a minute later."""
    from mlflow.tracking import MlflowClient

    from tests.cluster import dev

    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        line = command_lines.theirs(folder, dev.RUNNER_IMAGE, access.context)
        (folder / "builtin/MLproject").write_text(
            f"name: bench\ndocker_env: {{image: '{dev.RUNNER_IMAGE}'}}\nentry_points:\n  main: "
            f"{{command: {json.dumps(command)}}}\n"
        )
        template = folder / "job.yaml"
        template.write_text(
            template.read_text() + (f"          {resources}\n" if resources else "")
        )
        known = _newest(MlflowClient())
        jobs = set(dev.kubectl(access, "-n", dev.NAMESPACE, "get", "jobs", "-o", "name").split())
        # as in a terminal, not as in the background
        interruptible = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(
            line,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
            preexec_fn=interruptible,
        )
        try:
            while not (
                made := set(
                    dev.kubectl(access, "-n", dev.NAMESPACE, "get", "jobs", "-o", "name").split()
                )
                - jobs
            ):
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.2)
            job = made.pop()
            act(process, job)
            time.sleep(WATCHED_S)
            run = _newest(MlflowClient())
            assert run and (known is None or run.info.run_id != known.info.run_id)
            pods = dev.kubectl(
                access,
                "-n",
                dev.NAMESPACE,
                "get",
                "pods",
                "-l",
                f"job-name={job.split('/')[1]}",
                "-o",
                "name",
            )
            told = {
                key: value
                for key, value in run.data.tags.items()
                if "cause" in key or "message" in key
            }
            return {"status_in_mlflow": run.info.status, "cause": told or None,
                "command_still_runs": process.poll() is None,
                    "pod_still_there": bool(pods), "last_words": _last_line(process)}  # fmt: skip
        finally:
            process.kill()
            process.wait()
            dev.kubectl(access, "-n", dev.NAMESPACE, "delete", "jobs", "--all", "--wait=false")


def nothing(process, job) -> None:
    """The fault is in the project."""


def leave(process, job) -> None:
    process.kill()


def interrupt(process, job) -> None:
    time.sleep(3)
    process.send_signal(signal.SIGINT)


def delete_job(access, process, job) -> None:
    from tests.cluster import dev

    time.sleep(3)
    dev.kubectl(access, "-n", dev.NAMESPACE, "delete", job, "--wait=false")


def _newest(client):
    found = client.search_runs(["0"], order_by=["attributes.start_time DESC"], max_results=1)
    return found[0] if found else None


def _last_line(process) -> str | None:
    if process.poll() is None:
        return None
    lines = process.stderr.read().strip().splitlines()
    return lines[-1][:200] if lines else None


if __name__ == "__main__":
    main()
