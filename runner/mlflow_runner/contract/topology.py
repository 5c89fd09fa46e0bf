"""How the pods of a Job make up MLflow runs: one pod and one run, several nodes of one run, or an
array of runs. Pure.
"""

from typing import NamedTuple

SINGLE, NODES, ARRAY = "single", "nodes", "array"


class Member(NamedTuple):
    """A pod's place in its Job: the completion index (`rank`, from 0), and which attempt at it
    this is, from 1. Attempts compare only within an index.
    """

    rank: int = 0
    attempt: int = 1

    def replaces(self, other: "Member") -> bool:
        """Whether this pod came after `other`, at the same index."""
        return self.rank == other.rank and self.attempt > other.attempt


class Topology(NamedTuple):
    """`size` pods run at a time or one after another, one for each index.

    SINGLE: one pod, one run. NODES: all pods are of one run, and index 0 tells its status. ARRAY:
    each index is a run of its own.
    """

    kind: str = SINGLE
    size: int = 1

    def reports(self, index: int) -> bool:
        """Whether the pod at `index` sets the status and tags of a run."""
        return self.kind != NODES or index == 0

    def log_folder(self, index: int) -> str:
        """The artifact folder of the log that the pod at `index` writes."""
        return f"logs/node-{index}" if self.kind == NODES else "logs"

    def name(self, index: int) -> str:
        """The pod at `index` for people; empty where a run has only one."""
        return f"node {index} of {self.size}" if self.kind == NODES else ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.size}"

    @staticmethod
    def parse(text: str) -> "Topology":
        """Inverse of `str`. Raises ValueError."""
        kind, _, size = text.partition("/")
        if kind not in (SINGLE, NODES, ARRAY) or not (size.isascii() and size.isdigit()):
            raise ValueError(f"{text!r} is no topology")
        return Topology(kind, int(size))


def number(text: str, default: int) -> int:
    """`text` as a whole number from 0 on; `default` where it is anything else, as everyone may
    write tags and annotations.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
