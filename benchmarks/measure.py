"""Timing of things on the cluster: every time is taken from one clock, that of this machine."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date, datetime

from mlflow_backend.places.kubernetes.client.api import Cluster

REPETITIONS = 10


def header(repetitions: int) -> dict:
    """When and where: the first lines of a results file."""
    machine = (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python "
        f"{platform.python_version()}"
    )
    return {"date": date.today().isoformat(), "machine": machine, "repetitions": repetitions}


def summary(values: list[float]) -> dict[str, float]:
    """Median and extremes in seconds, rounded to the millisecond."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "n": len(values),
    }


def repeat(function: Callable[[], float], warm_up: int = 1) -> dict[str, float]:
    for _ in range(warm_up):
        function()
    return summary([function() for _ in range(REPETITIONS)])


def repeat_in_turn(
    one: Callable[[], float],
    other: Callable[[], float],
    repetitions: int = REPETITIONS,
    warm_up: int = 1,
) -> tuple[dict[str, float], dict[str, float]]:
    """Both alternately, so that a slow moment of machine or network, or pods that are being
    removed, meet both.
    """
    pairs = [(one(), other()) for _ in range(warm_up + repetitions)][warm_up:]
    return summary([pair[0] for pair in pairs]), summary([pair[1] for pair in pairs])


def first_line_at(cluster: Cluster, job: str) -> float:
    """When the pod of `job` printed its first line: seconds since the epoch, as the container
    runtime noted it.
    """
    while not (
        pods := [
            pod
            for pod in cluster.list_objects("Pod", f"job-name={job}")[0]
            if pod["status"]["phase"] == "Succeeded"
        ]
    ):
        time.sleep(0.1)
    stamp = next(cluster.follow_log(pods[0]["metadata"]["name"], None)).split(b" ", 1)[0].decode()
    return datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00").timestamp()


def bare_job(image: str, name: str) -> dict:
    """A Job that prints one line, with the same security settings and nothing else."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1000,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "run",
                            "image": image,
                            "command": ["bash", "-c", "echo first"],
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                }
            },
        },
    }


def show(results: dict) -> str:
    return json.dumps(results, indent=2)
