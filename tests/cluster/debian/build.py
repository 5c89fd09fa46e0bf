"""What the cluster is made of: Debian packages, binaries from Go modules, images from Debian. Each
made once.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.debian.paths import (
    BASE_IMAGE,
    BIN,
    CONTAINERD,
    DOCKER_HOST,
    KUBERNETES_VERSION,
    LOG,
    PAUSE_IMAGE,
    SOURCE,
    STATE,
)

PACKAGES = (
    "containerd", "runc", "docker.io", "containernetworking-plugins", "iptables", "iproute2", "conntrack", "socat",
    "etcd-server", "debootstrap", "docker-registry", "openssl", "gcc", "libc6-dev",
)  # fmt: skip
COMMANDS = (
    "kubectl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)


def packages() -> None:
    installed = subprocess.run(["dpkg", "-s", *PACKAGES], capture_output=True).returncode == 0
    if not installed:
        say("installing Debian packages")
        env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        _logged("apt", ["apt-get", "update", "-qq"], env=env)
        _logged("apt", ["apt-get", "install", "-y", "-qq", *PACKAGES], env=env)


def binaries() -> None:
    """Build what is missing: about ten minutes on two cores with an empty Go cache."""
    version = "k8s.io/component-base/version"
    kubernetes = (
        f"-s -w -X {version}.gitVersion={KUBERNETES_VERSION} -X {version}.gitMajor=1 -X "
        f"{version}.gitMinor=34"
    )
    if not all((BIN / name).exists() for name in COMMANDS):
        say("building Kubernetes from its Go modules (once, some minutes)")
        _go_build(
            SOURCE / "kubernetes",
            kubernetes,
            [f"k8s.io/kubernetes/cmd/{name}" for name in COMMANDS],
        )
    if not (BIN / "coredns").exists():
        say("building CoreDNS from its Go module (once, some minutes)")
        _go_build(SOURCE / "dns", "-s -w", ["github.com/coredns/coredns"])


def images() -> None:
    """The sandbox image and a Python base image, in docker and in the cluster."""
    if not _in_docker(PAUSE_IMAGE):
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(
                [
                    "gcc",
                    "-static",
                    "-O2",
                    "-o",
                    f"{directory}/pause",
                    str(SOURCE / "config" / "pause.c"),
                ],
                check=True,
            )
            _import(Path(directory), PAUSE_IMAGE, 'ENTRYPOINT ["/pause"]')
    if not _in_docker(BASE_IMAGE):
        root = STATE / "rootfs"
        if not (root / "usr/bin/python3").exists():
            say("making a base image with debootstrap (once, a minute)")
            wanted = "ca-certificates,python3,python3-venv,python3-pip"
            _logged(
                "debootstrap",
                ["debootstrap", "--variant=minbase", f"--include={wanted}", "bookworm", str(root)],
            )
        # so that installers in a build trust what this machine trusts
        shutil.copy(
            "/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt"
        )
        _import(root, BASE_IMAGE, 'CMD ["python3"]')
    for image in (PAUSE_IMAGE, BASE_IMAGE):
        load(image)


def load(image: str) -> None:
    """Copy an image from docker into the cluster's containerd, unless the same one is there."""
    wanted = _docker("image", "inspect", "--format", "{{.Id}}", image, capture=True)
    marker = STATE / "loaded" / image.replace("/", "_").replace(":", "_")
    present = subprocess.run(
        _ctr("images", "ls", "-q"), capture_output=True, text=True, check=True
    ).stdout
    if f"docker.io/{image}" in present and marker.exists() and marker.read_text() == wanted:
        return
    say(f"loading image {image}")
    save = subprocess.Popen(["docker", "-H", DOCKER_HOST, "save", image], stdout=subprocess.PIPE)
    subprocess.run(
        _ctr("images", "import", "-"), stdin=save.stdout, check=True, stdout=subprocess.DEVNULL
    )
    if save.wait():
        raise SystemExit(f"cluster: docker save {image} failed")
    marker.parent.mkdir(exist_ok=True)
    marker.write_text(wanted)


def say(text: str) -> None:
    print(f"cluster: {text}", flush=True)


def _go_build(module: Path, linker_flags: str, packages: list[str]) -> None:
    BIN.mkdir(parents=True, exist_ok=True)
    if not shutil.which("go"):
        raise SystemExit(
            "cluster: there is no Go here: install Go 1.24 or newer, or name a cluster in "
            "MLFLOW_COMPUTE_TEST_CONTEXT"
        )
    command = ["go", "build", "-trimpath", "-ldflags", linker_flags, "-o", f"{BIN}/", *packages]
    _logged(f"build-{module.name}", command, cwd=module, env=dict(os.environ, CGO_ENABLED="0"))


def _logged(name: str, command: list[str], **keywords) -> None:
    LOG.mkdir(parents=True, exist_ok=True)
    path = LOG / f"{name}.log"
    with open(path, "a") as log:
        if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, **keywords).returncode:
            raise SystemExit(
                f"cluster: {' '.join(command[:3])} failed; the end of "
                f"{path}:\n{path.read_text()[-1500:]}"
            )


def _import(root: Path, image: str, change: str) -> None:
    tar = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
    command = ["docker", "-H", DOCKER_HOST, "import", "-c", change, "-", image]
    subprocess.run(command, stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL)
    tar.wait()


def _in_docker(image: str) -> bool:
    return (
        subprocess.run(
            ["docker", "-H", DOCKER_HOST, "image", "inspect", image], capture_output=True
        ).returncode
        == 0
    )


def _docker(*arguments: str, capture: bool = False) -> str:
    return subprocess.run(
        ["docker", "-H", DOCKER_HOST, *arguments], check=True, text=True, capture_output=capture
    ).stdout


def _ctr(*arguments: str) -> list[str]:
    return ["ctr", "-a", CONTAINERD, "-n", "k8s.io", *arguments]
