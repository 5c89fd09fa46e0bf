"""The cluster with everything a person needs to try runs: image, tracking server, targets file, variables to source."""

import json
import os
import shlex
import subprocess
from pathlib import Path

from tests.cluster.place import IMAGE, TRACKING_URI, Access, choose

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cluster"
RUNNER_IMAGE = "local/mlflow-runner:full"
CONTROLLER_IMAGE = "local/mlflow-compute-controller:dev"
NAMESPACE = "mlflow"
NODE_PORT = 30500


def up() -> Access:
    """Idempotent; leaves `.cluster/env` and `.cluster/mlflow-compute.yaml`."""
    place = choose()
    access = place.up()
    if access.base_image:
        _build_images(access)
        for image in (RUNNER_IMAGE, CONTROLLER_IMAGE):
            place.load(image)
        tracking_uri = _tracking_server(access)
    else:
        tracking_uri = os.environ[TRACKING_URI]
    _write_files(access, tracking_uri)
    return access


def down() -> None:
    choose().down()
    for name in ("env", "mlflow-compute.yaml"):
        (FOLDER / name).unlink(missing_ok=True)


def _build_images(access: Access) -> None:
    """The runner's with the whole of MLflow, so that the example's packages are there: its runs need no environment of their own."""
    _build(access, RUNNER_IMAGE, "--build-arg", f"BASE={access.base_image}", "--build-arg", "MLFLOW=mlflow", str(ROOT / "runner"))
    _build(access, CONTROLLER_IMAGE, "--build-arg", f"BASE={RUNNER_IMAGE}", "--file", str(ROOT / "k8s/controller/Dockerfile"), str(ROOT))


def _build(access: Access, image: str, *arguments: str) -> None:
    command = ["docker", "build", "--quiet", "--network=host", "--tag", image, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_docker_env(access))


def install(access: Access, folder: str, namespace: str) -> None:
    """k8s/base or k8s/controller in a namespace of its own."""
    text = render(access, folder).replace("namespace: mlflow\n", f"namespace: {namespace}\n")
    kubectl(access, "apply", "-f", "-", stdin=text.replace("\n  name: mlflow\n", f"\n  name: {namespace}\n"))


def render(access: Access, folder: str) -> str:
    """The manifests of k8s/`folder` with the images that are loaded here."""
    command = [access.kubectl, "kustomize", str(ROOT / "k8s" / folder)]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line, image in (("image: python:3.12-slim", RUNNER_IMAGE), ("image: mlflow-compute-controller", CONTROLLER_IMAGE)):
        rendered = rendered.replace(f"{line}\n", f"image: {image}\n")
    return rendered


def _tracking_server(access: Access) -> str:
    """Apply k8s/dev with the image that is loaded; the server's address for people and pods alike."""
    make_volume(access, "mlflow")
    kubectl(access, "apply", "-f", "-", stdin=render(access, "dev"))
    for name in ("mlflow", "mlflow-compute-controller"):
        kubectl(access, "-n", NAMESPACE, "rollout", "status", f"deployment/{name}", "--timeout=180s")
    address = kubectl(access, "get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}")
    return f"http://{address.split()[0]}:{NODE_PORT}"


def make_volume(access: Access, claim: str) -> None:
    """On a cluster without a storage class: a folder of the node for the claim of this name."""
    if kubectl(access, "get", "storageclass", "-o", "name"):
        return
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"mlflow-compute-{claim}"},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": NAMESPACE, "name": claim},
            "hostPath": {"path": _shared_folder(claim), "type": "DirectoryOrCreate"},
        },
    }
    kubectl(access, "apply", "-f", "-", stdin=json.dumps(volume))


def _shared_folder(claim: str) -> str:
    """fsGroup does not apply to hostPath volumes: the folder is made writable for every pod."""
    from tests.cluster.debian.paths import STATE

    folder = STATE / "volumes" / claim
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    return str(folder)


def _write_files(access: Access, tracking_uri: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    image = RUNNER_IMAGE if access.base_image else os.environ[IMAGE]
    targets = FOLDER / "mlflow-compute.yaml"
    targets.write_text(
        f"tracking_uri: {tracking_uri}\n"
        "targets:\n"
        "  dev-cluster:\n"
        f"    context: {access.context}\n"
        f"    namespace: {NAMESPACE}\n"
        f"    image: {image}\n"
        "    resources: {memory: 2Gi}\n"
    )
    variables = {"KUBECONFIG": access.kubeconfig, "MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_COMPUTE_CONFIG": str(targets)}
    if access.docker_host:
        variables["DOCKER_HOST"] = access.docker_host
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    if os.sep in access.kubectl:
        lines.append(f"export PATH={shlex.quote(os.path.dirname(access.kubectl))}:$PATH\n")
    (FOLDER / "env").write_text("".join(lines))


def kubectl(access: Access, *arguments: str, stdin: str | None = None) -> str:
    command = [access.kubectl, "--kubeconfig", access.kubeconfig, "--context", access.context, *arguments]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"cluster: {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout.strip()


def _docker_env(access: Access) -> dict[str, str]:
    return {**os.environ, **({"DOCKER_HOST": access.docker_host} if access.docker_host else {})}
