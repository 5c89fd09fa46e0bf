"""The platform that an environment is locked for: that of the target, not of this machine."""

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_backend.targets.target import DEFAULT_GPU_RESOURCE, Target
from mlflow_runner.contract import machines

GLIBC = "2.28"
"""The version that an image is assumed to have at least: RHEL 8 and Debian 10 (PEP 600's
manylinux_2_28).
"""
CUDA = "12"
"""The version that a node with an NVIDIA GPU is assumed to run: any driver from 525 on does."""
MANYLINUX = (17, 28, *range(31, 41))
"""The minor versions of glibc 2 for which uv has a --python-platform."""


@dataclass(frozen=True)
class Platform:
    """A conda subdir such as `linux-64`, and its virtual packages: name to version, or to
    `version=build`.
    """

    subdir: str
    virtual_packages: Mapping[str, str]

    @property
    def for_uv(self) -> str:
        """The platform as a value of uv's option --python-platform."""
        system, _, name = self.subdir.partition("-")
        machine = machines.find(name)
        kernel = machine.kernel if machine else name
        if system == "osx":
            return f"{kernel}-apple-darwin"
        glibc = int(self.virtual_packages.get("__glibc", GLIBC).split(".")[1])
        minor = max((minor for minor in MANYLINUX if minor <= glibc), default=MANYLINUX[0])
        return f"{kernel}-manylinux_2_{minor}"


def of_target(target: Target) -> Platform:
    """From the target's `platform` and `virtual_packages`; without `platform` from its
    node_selector, or else linux-64.
    """
    machine = machines.find(target.node_selector.get("kubernetes.io/arch", ""))
    gpu = bool(target.resources.gpu) and target.gpu_resource == DEFAULT_GPU_RESOURCE
    subdir = target.platform or f"linux-{machine.conda if machine else '64'}"
    return Platform(subdir, _linux_packages(subdir, GLIBC, gpu) | target.virtual_packages)


def of_this_machine() -> Platform:
    """On Linux the default of a target, as far as this machine supports it: a run here and a run
    in a pod then share a key.
    """
    subdir = machines.subdir(sys.platform, platform.machine())
    if sys.platform == "darwin":
        return Platform(subdir, {"__unix": "0", "__osx": platform.mac_ver()[0]})
    own = platform.libc_ver()[1] or GLIBC
    glibc = min(own, GLIBC, key=lambda version: [int(part) for part in version.split(".")])
    return Platform(subdir, _linux_packages(subdir, glibc, os.path.exists("/dev/nvidia0")))


def _linux_packages(subdir: str, glibc: str, gpu: bool) -> dict[str, str]:
    packages = {"__unix": "0", "__linux": "5.4", "__glibc": glibc}
    if subdir == "linux-64":
        packages["__archspec"] = "1=x86_64"
    return packages | ({"__cuda": CUDA} if gpu else {})
