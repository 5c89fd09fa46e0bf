"""The names that conda, the kernel and Kubernetes give to one kind of processor."""

from typing import NamedTuple, Optional


class Machine(NamedTuple):
    """A processor: `conda` ends a conda subdir of Linux, `kernel` is what `uname -m` and the tags
    of wheels say, `kubernetes` the value of the label `kubernetes.io/arch`.
    """

    conda: str
    kernel: str
    kubernetes: str


MACHINES = (
    Machine("64", "x86_64", "amd64"),
    Machine("aarch64", "aarch64", "arm64"),
    Machine("ppc64le", "ppc64le", "ppc64le"),
    Machine("s390x", "s390x", "s390x"),
)


def find(name: str) -> Optional[Machine]:
    """The machine with this name, in any case and any of the three columns."""
    return next((machine for machine in MACHINES if name.lower() in machine), None)


def subdir(system: str, name: str) -> str:
    """The conda subdir of a machine, such as `linux-64` or `osx-arm64`: `system` as `sys.platform`
    has it, `name` as `find` reads it. An unknown name stays as it is.
    """
    machine = find(name)
    conda = machine.conda if machine else name.lower()
    if system != "darwin":
        return f"linux-{conda}"
    return "osx-arm64" if conda == "aarch64" else f"osx-{conda}"  # Apple's word for it
