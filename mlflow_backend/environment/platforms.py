"""The platform an environment is locked for: the target's, never by chance the submitting
machine's.
"""

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_backend.targets.target import DEFAULT_GPU_RESOURCE, Target

GLIBC = "2.28"
"""What is assumed of an image: RHEL 8, Debian 10 and all that is younger (PEP 600's
manylinux_2_28).
"""
CUDA = "12"
"""What is assumed of a node with an NVIDIA GPU: any driver from 525 on runs CUDA 12."""
MANYLINUX = (17, 28, *range(31, 41))
ARCHITECTURES = {
    "amd64": "linux-64",
    "arm64": "linux-aarch64",
    "ppc64le": "linux-ppc64le",
    "s390x": "linux-s390x",
}
MACHINES = {
    "x86_64": "64",
    "amd64": "64",
    "aarch64": "aarch64",
    "arm64": "arm64",
    "ppc64le": "ppc64le",
}


@dataclass(frozen=True)
class Platform:
    """A conda subdir such as `linux-64`, and its virtual packages: name to version, or to
    `version=build`.
    """

    subdir: str
    virtual_packages: Mapping[str, str]

    @property
    def for_uv(self) -> str:
        """The same as uv's --python-platform names it."""
        system, _, machine = self.subdir.partition("-")
        arch = {"64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
        if system == "osx":
            return f"{arch}-apple-darwin"
        minor = int(self.virtual_packages.get("__glibc", GLIBC).split(".")[1])
        known = max((known for known in MANYLINUX if known <= minor), default=17)
        return f"{arch}-manylinux_2_{known}"


def of_target(target: Target) -> Platform:
    """From the target's `platform` and `virtual_packages`, else its node_selector, else
    linux-64.
    """
    architecture = target.node_selector.get("kubernetes.io/arch", "amd64")
    gpu = bool(target.resources.gpu) and target.gpu_resource == DEFAULT_GPU_RESOURCE
    subdir = target.platform or ARCHITECTURES.get(architecture, "linux-64")
    return Platform(subdir, _linux(subdir, GLIBC, gpu) | target.virtual_packages)


def of_this_machine() -> Platform:
    """On Linux the same as a target's default where that runs here, so that a run here and in a pod
    share a key.
    """
    machine = platform.machine().lower()
    if sys.platform == "darwin":
        return Platform(f"osx-{MACHINES[machine]}", {"__unix": "0", "__osx": platform.mac_ver()[0]})
    own = platform.libc_ver()[1] or GLIBC
    glibc = min(own, GLIBC, key=lambda version: [int(part) for part in version.split(".")])
    subdir = "linux-aarch64" if machine == "arm64" else f"linux-{MACHINES.get(machine, machine)}"
    return Platform(subdir, _linux(subdir, glibc, os.path.exists("/dev/nvidia0")))


def _linux(subdir: str, glibc: str, gpu: bool) -> dict[str, str]:
    packages = {"__unix": "0", "__linux": "5.4", "__glibc": glibc}
    if subdir == "linux-64":
        packages["__archspec"] = "1=x86_64"
    return packages | ({"__cuda": CUDA} if gpu else {})
