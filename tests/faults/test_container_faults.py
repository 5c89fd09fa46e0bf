"""Containers in addition to the run's own: sidecars that do not end, init containers that fail."""

import pytest

from tests.bed.runs import wait_for
from tests.cluster import dev
from tests.faults.watched import CLIENT, CONTROLLER

RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def container(name, command, **more):
    return {
        "name": name,
        "image": dev.RUNNER_IMAGE,
        "command": ["sh", "-c", command],
        "securityContext": RESTRICTED,
        **more,
    }


def with_init(item):
    return {"spec": {"initContainers": [item]}}


@pytest.mark.parametrize(
    ("command", "end"), [("true", ("FINISHED", None)), ("exit 3", ("FAILED", "ExitCode"))]
)
def test_a_sidecar_that_does_not_end(faults, kubectl, command, end):
    """The run's container alone says how the run ended, and nothing of the pod is left
    (kubernetes#73118).
    """
    started = faults.start(
        command, pod_template={"spec": {"containers": [container("sidecar", "sleep 600")]}}
    )
    faults.check(f"sidecar that does not end ({command})", started, *end, timed=False)
    for watched in started:
        wait_for(lambda one=watched: not one.pods(kubectl), timeout_s=90)


def test_an_init_container_that_fails(faults):
    started = faults.start("true", pod_template=with_init(container("prepare", "echo oh; exit 9")))
    faults.check(
        "init container exits with 9", started, "FAILED", "InitContainerFailed", timed=False
    )


def test_an_init_container_whose_image_cannot_be_pulled(faults):
    item = container("prepare", "true") | {"image": "localhost:5999/none:1"}
    started = faults.start("true", pod_template=with_init(item), start_timeout=12)
    faults.check(
        "init container's image cannot be pulled", started, "FAILED", "ImagePullError", timed=False
    )


def test_a_sidecar_whose_image_cannot_be_pulled(faults, kubectl):
    """The pod's phase stays Pending while the run runs and ends."""
    item = container("sidecar", "true") | {"image": "localhost:5999/none:1"}
    started = faults.start("sleep 5; exit 3", pod_template={"spec": {"containers": [item]}})
    faults.check("sidecar's image cannot be pulled", started, "FAILED", "ExitCode", timed=False)
    for watched in started:
        wait_for(lambda one=watched: not one.pods(kubectl), timeout_s=90)


def test_a_sidecar_does_not_keep_the_next_attempt_from_its_start(faults):
    """To its Job a pod has not ended while a sidecar of it goes on: it has to be deleted, which the
    controller may, and of people those who may delete pods.
    """
    again = 'test "$MLFLOW_COMPUTE_ATTEMPT" = 2 || exit 75'
    template = {"spec": {"containers": [container("sidecar", "sleep 600")]}}
    started = faults.start(
        again, watchers=(CLIENT, CONTROLLER), retries=1, retry_on=[75], pod_template=template
    )
    faults.check(
        "exit code 75, retry_on: [75], beside a sidecar",
        started,
        "FINISHED",
        None,
        timeout_s=180,
        timed=False,
    )


def test_a_native_sidecar_that_crashes_before_the_run_can_start(faults):
    item = container(
        "proxy",
        "exit 2",
        restartPolicy="Always",
        startupProbe={"exec": {"command": ["false"]}, "failureThreshold": 99},
    )
    started = faults.start("true", pod_template=with_init(item), start_timeout=20)
    faults.check(
        "native sidecar exits with 2", started, "FAILED", "InitContainerFailed", timed=False
    )
