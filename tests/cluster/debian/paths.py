"""Where this cluster keeps things, and its fixed addresses."""

import os
from pathlib import Path
from string import Template

KUBERNETES_VERSION = "v1.34.4"
NODE, NODE_IP, BRIDGE = "node-1", "10.244.0.1", "mlflow0"
POD_CIDR, SERVICE_CIDR, API_SERVICE_IP = "10.244.0.0/24", "10.96.0.0/16", "10.96.0.1"
PAUSE_IMAGE, BASE_IMAGE = "local/pause:1", "local/python:3.11"

SOURCE = Path(__file__).parent
STATE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlflow-compute-cluster"
BIN, PKI, LOG, CONFIG = STATE / "bin", STATE / "pki", STATE / "log", STATE / "config"
RUN = Path("/run/mlflow-compute-cluster")
"""Sockets and pid files: short paths, gone with a reboot."""
DOCKER_HOST = f"unix://{RUN}/docker.sock"
CONTAINERD = str(RUN / "containerd.sock")
KUBECONFIG = PKI / "admin.kubeconfig"


def write_config(name: str, target: Path) -> Path:
    """Fill in the template `config/NAME` and write it to `target`."""
    values = {
        "state": STATE, "run": RUN, "pki": PKI, "node": NODE, "node_ip": NODE_IP, "bridge": BRIDGE,
        "pod_cidr": POD_CIDR, "pause_image": PAUSE_IMAGE,
    }  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(Template((SOURCE / "config" / name).read_text()).substitute(values))
    return target
