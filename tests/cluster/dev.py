"""The cluster with everything a person needs to try runs: image, tracking server, targets file,
variables to source.
"""

import json
import os
import shlex
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.cluster.lock import alone
from tests.cluster.place import IMAGE, TRACKING_URI, Access, choose

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cluster"
RUNNER_IMAGE = "local/mlflow-runner:full"
CONTROLLER_IMAGE = "local/mlflow-compute-controller:dev"
RUNS, SYSTEM, CONTROLLER = "mlflow", "mlflow-compute-system", "mlflow-compute-controller"
NAMESPACE = "-".join((RUNS, *filter(None, [os.environ.get("PYTEST_XDIST_WORKER")])))
"""Where this process's tests submit runs: each worker of pytest-xdist has a namespace of its own.
"""
NODE_PORT = 30500
IMAGES = [
    {"name": used, "newName": loaded.split(":")[0], "newTag": loaded.split(":")[1]}
    for used, loaded in {"python": RUNNER_IMAGE, CONTROLLER: CONTROLLER_IMAGE}.items()
]
"""The images of the manifests and those that are loaded here, as kustomize takes them."""
ALLOWED_SECRETS = {
    "target": {"kind": "Namespace", "labelSelector": "mlflow-compute/runs=true"},
    "patch": (
        '[{"op": "add", "path": "/metadata/annotations", "value": {"mlflow-compute/secrets": '
        '"not-there, team"}}]'
    ),
}
"""The Secrets of the tests that targets name."""


def up() -> Access:
    """Idempotent; leaves `.cluster/env` and `.cluster/mlflow-compute.yaml`.

    The workers of one pytest session do it once for all.
    """
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    with alone() as note:
        last = json.loads(note.read() or "{}")
        if session and last.get("session") == session:
            return Access(**last["access"])
        note.truncate(0)
        access = _up()
        note.write(json.dumps({"session": session, "access": asdict(access)}))
        return access


def _up() -> Access:
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
    with alone() as note:
        note.truncate(0)
        choose().down()
    for name in ("env", "mlflow-compute.yaml"):
        (FOLDER / name).unlink(missing_ok=True)


def _build_images(access: Access) -> None:
    """The runner's with the whole of MLflow, so that the example's packages are there: its runs
    need no environment of their own.
    """
    _build(
        access,
        RUNNER_IMAGE,
        "--build-arg",
        f"BASE={access.base_image}",
        "--build-arg",
        "MLFLOW=mlflow",
        str(ROOT / "runner"),
    )
    _build(
        access,
        CONTROLLER_IMAGE,
        "--build-arg",
        f"BASE={RUNNER_IMAGE}",
        "--file",
        str(ROOT / "k8s/controller/Dockerfile"),
        str(ROOT),
    )


def _build(access: Access, image: str, *arguments: str) -> None:
    command = ["docker", "build", "--quiet", "--network=host", "--tag", image, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_docker_env(access))


def add_namespace(access: Access, name: str, controller: str = SYSTEM) -> None:
    """One more namespace of runs, by an overlay as k8s/README.md shows it; the controller in the
    namespace `controller` settles its runs.
    """
    subject = json.dumps([{"op": "replace", "path": "/subjects/0/namespace", "value": controller}])
    patches = [
        {"target": {"kind": "RoleBinding", "name": "mlflow-compute-controller"}, "patch": subject},
        ALLOWED_SECRETS,
    ]
    _apply(
        access,
        name,
        {"namespace": name, "resources": ["../../../k8s/namespace"], "patches": patches},
    )
    kubectl(access, "-n", name, "wait", "--for=create", "serviceaccount/default", "--timeout=60s")


def add_controller(access: Access, name: str, runs: str, tracking_uri: str) -> None:
    """A controller in a namespace of its own, called `name`, for the runs in the namespace `runs`;
    ready, with the image as it is now.
    """
    arguments = json.dumps(
        [
            {
                "op": "replace",
                "path": "/spec/template/spec/containers/0/args",
                "value": [f"--namespace={runs}"],
            }
        ]
    )
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    kubectl(access, "apply", "-f", "-", stdin=json.dumps(space))
    overlay = {
        "namespace": name,
        "resources": ["../../../k8s/controller"],
        "patches": [{"target": {"kind": "Deployment"}, "patch": arguments}],
        "configMapGenerator": [
            {"name": CONTROLLER, "literals": [f"MLFLOW_TRACKING_URI={tracking_uri}"]}
        ],
        "generatorOptions": {"disableNameSuffixHash": True},
    }
    _apply(access, name, overlay)
    # of an earlier session
    kubectl(access, "-n", name, "rollout", "restart", f"deployment/{CONTROLLER}")
    await_deployment(access, name, CONTROLLER)


def await_deployment(access: Access, namespace: str, name: str) -> None:
    kubectl(access, "-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=180s")


def _apply(access: Access, name: str, overlay: dict[str, Any]) -> None:
    """Apply `.cluster/overlays/NAME`, a kustomization on k8s/ with the images that are loaded here."""
    folder = FOLDER / "overlays" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(json.dumps({**overlay, "images": IMAGES}, indent=2))
    kubectl(access, "apply", "-k", str(folder))


def _tracking_server(access: Access) -> str:
    """Apply k8s/dev; the server's address for people and pods alike."""
    make_volume(access, "mlflow", RUNS)
    _apply(access, "dev", {"resources": ["../../../k8s/dev"], "patches": [ALLOWED_SECRETS]})
    await_deployment(access, RUNS, "mlflow")
    await_deployment(access, SYSTEM, CONTROLLER)
    address = kubectl(
        access,
        "get",
        "nodes",
        "-o",
        "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}",
    )
    return f"http://{address.split()[0]}:{NODE_PORT}"


def make_volume(access: Access, claim: str, namespace: str = NAMESPACE) -> None:
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
            "claimRef": {"namespace": namespace, "name": claim},
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
        f"tracking_uri: {tracking_uri}\ntargets:\n  dev-cluster:\n    context: {access.context}\n  "
        f"  namespace: {RUNS}\n    image: {image}\n    resources: {{memory: 2Gi}}\n"
    )
    variables = {
        "KUBECONFIG": access.kubeconfig,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_COMPUTE_CONFIG": str(targets),
    }
    if access.docker_host:
        variables["DOCKER_HOST"] = access.docker_host
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    if os.sep in access.kubectl:
        lines.append(f"export PATH={shlex.quote(os.path.dirname(access.kubectl))}:$PATH\n")
    (FOLDER / "env").write_text("".join(lines))


class KubectlFailed(Exception):
    """An `Exception`, so that pytest goes on with the teardown of a test whose fixture it ends."""


def kubectl(access: Access, *arguments: str, stdin: str | None = None) -> str:
    command = [
        access.kubectl,
        "--kubeconfig",
        access.kubeconfig,
        "--context",
        access.context,
        *arguments,
    ]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if result.returncode:
        raise KubectlFailed(f"{' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout.strip()


def _docker_env(access: Access) -> dict[str, str]:
    return {**os.environ, **({"DOCKER_HOST": access.docker_host} if access.docker_host else {})}
