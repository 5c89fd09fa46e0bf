"""How much of a resource is free on the nodes, for a run that none of them takes.

Silent where the user may not list nodes.
"""

import re
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

SHORT = re.compile(r"Insufficient ([\w./-]*\w)")
"""How the scheduler names what no node has enough of."""
FRESH_S = 60.0
"""Nodes and pods of the whole cluster are asked for no sooner than this after the last time,
however many runs wait.
"""


class Node(NamedTuple):
    """A node and what its pods may use, by resource name, as the API writes amounts."""

    name: str
    allocatable: Mapping[str, str]


class Taken(NamedTuple):
    """What one pod takes of a node."""

    node: str
    requests: Mapping[str, Decimal]


class _Room:
    """What was asked of one cluster last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked_at: float | None = None
        self.nodes: list[Node] = []
        self.pods: list[Taken] | None = None


_rooms: "weakref.WeakKeyDictionary[Any, _Room]" = weakref.WeakKeyDictionary()
_rooms_lock = threading.Lock()


def short_of(pod: Mapping[str, Any] | None) -> list[str]:
    """The resources that the scheduler says are short for this pod: cpu, memory, nvidia.com/gpu."""
    conditions = (pod or {}).get("status", {}).get("conditions") or ()
    words = next(
        (
            item.get("message") or ""
            for item in conditions
            if item["type"] == "PodScheduled" and item["status"] == "False"
        ),
        "",
    )
    return list(dict.fromkeys(SHORT.findall(words)))


def describe(
    cluster: Any, pod: Mapping[str, Any] | None, clock: Callable[[], float] = time.monotonic
) -> str:
    """What is free of that at most on one node, in one sentence; empty when nothing is short or may
    be known.
    """
    names = short_of(pod)
    if not names:
        return ""
    with _rooms_lock:
        room = _rooms.setdefault(cluster, _Room())
    with room.lock:  # who comes meanwhile waits for the same answer
        if room.asked_at is None or clock() - room.asked_at >= FRESH_S:
            room.asked_at = clock()
            room.nodes = cluster.list_nodes(node_of)
            room.pods = cluster.list_scheduled_pods(taken_by) if room.nodes else None
        nodes, pods = room.nodes, room.pods
    return most_free(nodes, pods, names) if nodes else ""


def most_free(nodes: Sequence[Node], pods: Sequence[Taken] | None, names: Sequence[str]) -> str:
    """For each resource the node with most of it free, `cpu 1.5 of 4 on node-1`; of what they have
    when pods may not be listed (None).
    """
    taken: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for pod in pods or ():
        for name in names:
            taken[pod.node, name] += pod.requests.get(name, Decimal(0))
    parts = []
    for name in names:
        rooms = [(_amount(node.allocatable.get(name, "0")), node.name) for node in nodes]
        free, total, node = max(
            (max(Decimal(0), total - taken[node, name]), total, node) for total, node in rooms
        )
        shown = (
            f"{_show(free, name)} of {_show(total, name)}"
            if pods is not None
            else _show(total, name)
        )
        parts.append(f"{name} {shown} on {node}")
    return ("most free on one node: " if pods is not None else "largest node: ") + ", ".join(parts)


def node_of(node: Mapping[str, Any]) -> Node:
    """What is kept of a node, whose list of images alone may be 50 kB."""
    return Node(node["metadata"]["name"], node.get("status", {}).get("allocatable") or {})


def taken_by(pod: Mapping[str, Any]) -> Taken:
    """What is kept of a pod. Its request is as the scheduler counts it: of the containers that run
    together, with sidecars, or of a larger init container, and the overhead of its runtime class.

    https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers
    """
    spec = pod["spec"]
    together: dict[str, Decimal] = defaultdict(Decimal)
    first: dict[str, Decimal] = defaultdict(Decimal)
    for part in spec.get("initContainers") or ():
        for name, amount in _requests(part).items():
            if part.get("restartPolicy") == "Always":
                together[name] += amount
            else:
                first[name] = max(first[name], together[name] + amount)
    for part in spec["containers"]:
        for name, amount in _requests(part).items():
            together[name] += amount
    overhead = {name: _amount(text) for name, text in (spec.get("overhead") or {}).items()}
    names = together.keys() | first.keys() | overhead.keys()
    return Taken(
        spec["nodeName"],
        {name: max(together[name], first[name]) + overhead.get(name, Decimal(0)) for name in names},
    )


def _requests(container: Mapping[str, Any]) -> dict[str, Decimal]:
    requests = (container.get("resources") or {}).get("requests") or {}
    return {name: _amount(text) for name, text in requests.items()}


def _amount(text: str) -> Decimal:
    from kubernetes.utils.quantity import parse_quantity

    return Decimal(parse_quantity(text))


def _show(amount: Decimal, name: str) -> str:
    if name in ("memory", "ephemeral-storage"):
        return f"{amount / 2**30:.1f}Gi"
    return f"{amount.normalize():f}"
