"""How much of a resource is free on the nodes, for a run that none of them takes. Needs the rights of k8s/nodes; without them it is silent."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

SHORT = re.compile(r"Insufficient ([\w./-]*\w)")
"""How the scheduler names what no node has enough of."""


def short_of(pod: Mapping[str, Any] | None) -> list[str]:
    """The resources that the scheduler says are short for this pod: cpu, memory, nvidia.com/gpu."""
    conditions = (pod or {}).get("status", {}).get("conditions") or ()
    words = next((item.get("message") or "" for item in conditions if item["type"] == "PodScheduled" and item["status"] == "False"), "")
    return list(dict.fromkeys(SHORT.findall(words)))


def describe(cluster: Any, pod: Mapping[str, Any] | None) -> str:
    """What is free of that at most on one node, in one sentence; empty when nothing is short or may be known."""
    names = short_of(pod)
    nodes = cluster.list_nodes() if names else []
    if not nodes:
        return ""
    return most_free(nodes, cluster.list_scheduled_pods(), names)


def most_free(nodes: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]] | None, names: Sequence[str]) -> str:
    """For each resource the node with most of it free, `cpu 1.5 of 4 on node-1`; of what they have when pods may not be listed (None)."""
    taken: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for pod in pods or ():
        for name in names:
            taken[pod["spec"]["nodeName"], name] += _requested(pod, name)
    parts = []
    for name in names:
        rooms = [(_amount(node["status"]["allocatable"].get(name, "0")), node["metadata"]["name"]) for node in nodes]
        free_of = [(max(Decimal(0), total - taken[node, name]), total, node) for total, node in rooms]
        free, total, node = max(free_of)
        shown = f"{_show(free, name)} of {_show(total, name)}" if pods is not None else _show(total, name)
        parts.append(f"{name} {shown} on {node}")
    return ("most free on one node: " if pods is not None else "largest node: ") + ", ".join(parts)


def _requested(pod: Mapping[str, Any], name: str) -> Decimal:
    requests = [(part.get("resources") or {}).get("requests") or {} for part in pod["spec"]["containers"]]
    return sum((_amount(request.get(name, "0")) for request in requests), Decimal(0))


def _amount(text: str) -> Decimal:
    from kubernetes.utils.quantity import parse_quantity

    return parse_quantity(text)


def _show(amount: Decimal, name: str) -> str:
    if name in ("memory", "ephemeral-storage"):
        return f"{amount / 2**30:.1f}Gi"
    return f"{amount.normalize():f}"
