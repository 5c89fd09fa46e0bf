"""Start and stop the control plane and the one node."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.cluster.debian import build, pki
from tests.cluster.debian.paths import (
    BIN,
    BRIDGE,
    CONFIG,
    CONTAINERD,
    DOCKER_HOST,
    KUBECONFIG,
    NODE,
    NODE_IP,
    PKI,
    RUN,
    SERVICE_CIDR,
    STATE,
    write_config,
)  # fmt: skip
from tests.cluster.debian.processes import alive, await_success, start, stop

KUBECTL = str(BIN / "kubectl")
DAEMONS = (
    "kubelet",
    "kube-proxy",
    "coredns",
    "scheduler",
    "manager",
    "apiserver",
    "etcd",
    "registry",
    "dockerd",
)


def up() -> None:
    """Idempotent: what runs already is left alone."""
    build.packages()
    build.binaries()
    # the kubelet mounts volumes into pods
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    _bridge()
    _container_runtimes()
    build.images()
    pki.make()
    _control_plane()
    _node()


def kill(name: str) -> None:
    """Stop one daemon as a crash does. `revive` starts it again."""
    pid = alive(name)
    if pid:
        os.kill(pid, signal.SIGKILL)
    while alive(name):
        time.sleep(0.02)


def revive() -> None:
    """Start what does not run, and wait until it is ready."""
    _container_runtimes()
    _control_plane()
    _node()


def down() -> None:
    """Stop everything and forget the cluster's state; binaries, certificates and images stay."""
    if alive("apiserver"):
        # only so that containers end in order; the rest forgets them anyhow
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [KUBECTL, "--kubeconfig", str(KUBECONFIG), "delete", "jobs,deployments,pods", "--all", "-A", "--grace-period=0", "--force"],
                capture_output=True, timeout=60,
            )  # fmt: skip
    for name in DAEMONS:
        stop(name)
    if alive("containerd"):
        tasks = subprocess.run(
            ["ctr", "-a", CONTAINERD, "-n", "k8s.io", "tasks", "ls", "-q"],
            capture_output=True,
            text=True,
        )
        for task in tasks.stdout.split():
            subprocess.run(
                ["ctr", "-a", CONTAINERD, "-n", "k8s.io", "tasks", "kill", "-s", "KILL", task],
                capture_output=True,
            )
        stop("containerd")
    _kill_shims()
    for mount in sorted(_mounts(), reverse=True):
        subprocess.run(["umount", "-l", mount], capture_output=True)
    _remove_rules()
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)
    for path in (
        STATE / "etcd",
        STATE / "kubelet",
        STATE / "containerd",
        STATE / "volumes",
        STATE / "loaded",
        RUN,
    ):
        shutil.rmtree(path, ignore_errors=True)


def _bridge() -> None:
    if subprocess.run(["ip", "link", "show", BRIDGE], capture_output=True).returncode:
        subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
        subprocess.run(["ip", "addr", "add", f"{NODE_IP}/24", "dev", BRIDGE], check=True)
        subprocess.run(["ip", "link", "set", BRIDGE, "up"], check=True)


def _container_runtimes() -> None:
    write_config("cni.conflist", CONFIG / "cni" / "10-bridge.conflist")
    start(
        "containerd",
        "containerd",
        "--config",
        str(write_config("containerd.toml", CONFIG / "containerd.toml")),
    )
    await_success("containerd", "ctr", "-a", CONTAINERD, "version")
    if not alive("dockerd"):
        (RUN / "dockerd-own.pid").unlink(missing_ok=True)
    start("dockerd", "dockerd", "--containerd", CONTAINERD, "--data-root", f"{STATE}/docker", "--exec-root", f"{RUN}/docker",
          "--pidfile", f"{RUN}/dockerd-own.pid", "-H", DOCKER_HOST, "--iptables=false", "--bridge=none")  # fmt: skip
    await_success("dockerd", "docker", "-H", DOCKER_HOST, "info")
    start(
        "registry",
        "docker-registry",
        "serve",
        str(write_config("registry.yml", CONFIG / "registry.yml")),
    )


def _control_plane() -> None:
    start("etcd", "etcd", "--data-dir", f"{STATE}/etcd", "--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls",
          "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level", "warn")  # fmt: skip
    start(
        "apiserver", str(BIN / "kube-apiserver"), "--etcd-servers", "http://127.0.0.1:2379", "--advertise-address", NODE_IP,
        "--secure-port", "6443", "--tls-cert-file", f"{PKI}/apiserver.crt", "--tls-private-key-file", f"{PKI}/apiserver.key",
        "--client-ca-file", f"{PKI}/ca.crt", "--service-account-issuer", "https://kubernetes.default.svc",
        "--service-account-key-file", f"{PKI}/sa.pub", "--service-account-signing-key-file", f"{PKI}/sa.key",
        "--service-cluster-ip-range", SERVICE_CIDR, "--authorization-mode", "Node,RBAC",
        "--enable-admission-plugins", "NodeRestriction", "--allow-privileged",
        "--kubelet-client-certificate", f"{PKI}/admin.crt", "--kubelet-client-key", f"{PKI}/admin.key",
        "--kubelet-preferred-address-types", "InternalIP",
    )  # fmt: skip
    await_success("apiserver", KUBECTL, "get", "--raw", "/readyz")
    start("manager", str(BIN / "kube-controller-manager"), "--kubeconfig", f"{PKI}/manager.kubeconfig",
          "--service-account-private-key-file", f"{PKI}/sa.key", "--root-ca-file", f"{PKI}/ca.crt",
          "--use-service-account-credentials", "--leader-elect=false", "--node-monitor-grace-period=16s", "--kube-api-qps=300", "--kube-api-burst=600")  # fmt: skip
    start(
        "scheduler",
        str(BIN / "kube-scheduler"),
        "--kubeconfig",
        f"{PKI}/scheduler.kubeconfig",
        "--leader-elect=false",
    )


def _node() -> None:
    start("kubelet", str(BIN / "kubelet"), "--config", str(write_config("kubelet.yaml", CONFIG / "kubelet.yaml")), "--kubeconfig",
          f"{PKI}/node.kubeconfig", "--hostname-override", NODE, "--node-ip", NODE_IP, "--root-dir", f"{STATE}/kubelet")  # fmt: skip
    start(
        "kube-proxy",
        str(BIN / "kube-proxy"),
        "--config",
        str(write_config("kube-proxy.yaml", CONFIG / "kube-proxy.yaml")),
    )
    start(
        "coredns", str(BIN / "coredns"), "-conf", str(write_config("Corefile", CONFIG / "Corefile"))
    )
    await_success("the node", KUBECTL, "get", "node", NODE, check=lambda output: " Ready" in output)
    await_success("the service account", KUBECTL, "get", "serviceaccount", "default")


def _kill_shims() -> None:
    """Shims of our containerd that outlived it, and their containers."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if CONTAINERD.encode() in command and b"-address" in command:
            pid = int(path.parent.name)
            for child in subprocess.run(
                ["pgrep", "-P", str(pid)], capture_output=True, text=True
            ).stdout.split():
                _kill(int(child))
            _kill(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _mounts() -> list[str]:
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [point for point in points if point.startswith((f"{STATE}/kubelet", str(RUN)))]


def _remove_rules() -> None:
    """The packet filter rules of kube-proxy and the CNI plugins."""
    saved = subprocess.run(["iptables-save"], capture_output=True, text=True).stdout
    kept = "".join(
        f"{line}\n" for line in saved.splitlines() if "KUBE-" not in line and "CNI-" not in line
    )
    subprocess.run(["iptables-restore"], input=kept, text=True, capture_output=True)
