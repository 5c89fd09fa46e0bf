"""Where the cluster comes from: an existing one that was named, kind, or one built on this machine.

In this order: the kubeconfig context in MLFLOW_COMPUTE_TEST_CONTEXT; kind, where
it is installed and docker runs; on Debian as root, Kubernetes from its Go modules.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONTEXT = "MLFLOW_COMPUTE_TEST_CONTEXT"
IMAGE = "MLFLOW_COMPUTE_TEST_IMAGE"
TRACKING_URI = "MLFLOW_COMPUTE_TEST_TRACKING_URI"
KIND_NAME = "mlflow-compute"
KIND_BASE_IMAGE = "python:3.12-slim"


class NoCluster(Exception):
    """No cluster can be had here; the message says what each way lacks."""


@dataclass(frozen=True)
class Access:
    """What a client of the cluster needs.

    `host` is this machine's address as pods see it, None if they cannot.
    """

    kubeconfig: str
    context: str
    docker_host: str | None
    base_image: str | None
    host: str | None
    kubectl: str = "kubectl"


class Existing:
    """A cluster that another team runs; its images and tracking server are named by variables."""

    def up(self) -> Access:
        for name in (IMAGE, TRACKING_URI):
            if not os.environ.get(name):
                raise NoCluster(f"{CONTEXT} is set, so {name} must be too")
        kubeconfig = os.environ.get("KUBECONFIG", str(Path.home() / ".kube/config"))
        return Access(kubeconfig, os.environ[CONTEXT], None, None, None)

    def down(self) -> None:
        """Nothing of it is ours to stop."""

    def load(self, image: str) -> None:
        raise NoCluster(
            f"images of an existing cluster come from its registry: name one in {IMAGE}"
        )


class Kind:
    """A cluster in docker (https://kind.sigs.k8s.io)."""

    def up(self) -> Access:
        clusters = subprocess.run(
            ["kind", "get", "clusters"], capture_output=True, text=True
        ).stdout.split()
        if KIND_NAME not in clusters:
            subprocess.run(
                ["kind", "create", "cluster", "--name", KIND_NAME, "--wait", "120s"], check=True
            )
        kubeconfig = str(Path.home() / ".kube" / f"kind-{KIND_NAME}")
        subprocess.run(
            ["kind", "export", "kubeconfig", "--name", KIND_NAME, "--kubeconfig", kubeconfig],
            check=True,
        )
        gateway = subprocess.run(
            ["docker", "network", "inspect", "kind", "--format", "{{range .IPAM.Config}}{{.Gateway}} {{end}}"],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        host = next((address for address in gateway if ":" not in address), None)
        return Access(
            kubeconfig, f"kind-{KIND_NAME}", os.environ.get("DOCKER_HOST"), KIND_BASE_IMAGE, host
        )

    def down(self) -> None:
        subprocess.run(["kind", "delete", "cluster", "--name", KIND_NAME], check=True)

    def load(self, image: str) -> None:
        subprocess.run(["kind", "load", "docker-image", image, "--name", KIND_NAME], check=True)


class Debian:
    """Kubernetes built from its Go modules, on this machine itself."""

    def up(self) -> Access:
        from tests.cluster.debian import node, paths

        node.up()
        return Access(
            str(paths.KUBECONFIG),
            "test",
            paths.DOCKER_HOST,
            paths.BASE_IMAGE,
            paths.NODE_IP,
            str(paths.BIN / "kubectl"),
        )

    def down(self) -> None:
        from tests.cluster.debian import node

        node.down()

    def load(self, image: str) -> None:
        from tests.cluster.debian import build

        build.load(image)


def choose():
    """The first way that works here. Raises NoCluster that says why none does."""
    if os.environ.get(CONTEXT):
        return Existing()
    if (
        shutil.which("kind")
        and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    ):
        return Kind()
    if Path("/etc/debian_version").exists() and os.geteuid() == 0:
        return Debian()
    raise NoCluster(
        f"set {CONTEXT} to a kubeconfig context, install kind and docker, or be root on Debian "
        "with Go"
    )
