"""Containers beside the run's own: sidecars that do not end, init containers that fail."""

import pytest

from tests.bed.runs import wait_for
from tests.cluster import dev

RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def container(name, command, **more):
    return {"name": name, "image": dev.RUNNER_IMAGE, "command": ["sh", "-c", command], "securityContext": RESTRICTED, **more}


def with_init(item):
    return {"spec": {"initContainers": [item]}}


@pytest.mark.parametrize("command, end", [("true", ("FINISHED", None)), ("exit 3", ("FAILED", "ExitCode"))])
def test_a_sidecar_that_does_not_end(faults, kubectl, command, end):
    """The run's container alone says how the run ended, and nothing of the pod is left (kubernetes#73118)."""
    started = faults.start(command, pod_template={"spec": {"containers": [container("sidecar", "sleep 600")]}})
    faults.check(f"sidecar that does not end ({command})", started, *end, timed=False)
    for watched in started:
        wait_for(lambda one=watched: not one.pods(kubectl), timeout_s=90)


def test_an_init_container_that_fails(faults):
    started = faults.start("true", pod_template=with_init(container("prepare", "echo oh; exit 9")))
    faults.check("init container exits with 9", started, "FAILED", "InitContainerFailed", timed=False)


def test_an_init_container_whose_image_cannot_be_pulled(faults):
    item = container("prepare", "true") | {"image": "localhost:5999/none:1"}
    started = faults.start("true", pod_template=with_init(item), start_timeout=12)
    faults.check("init container's image cannot be pulled", started, "FAILED", "ImagePullError", timed=False)
