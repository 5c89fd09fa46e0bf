"""Which of a Job's pods count: at each index the latest attempt, and of these the one that decides
how the run is. Pure.

https://kubernetes.io/docs/reference/labels-annotations-taints/#batch-kubernetes-io-job-completion-index
and -failure-count are where a pod's index and attempt are written.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mlflow_backend.places.kubernetes.diagnose import model
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.timestamps import seconds
from mlflow_runner.contract.topology import Member, Topology, number

Object = Mapping[str, Any]


def member_of(pod: Object) -> Member:
    """The pod's index and attempt; those of a Job without indexes are 0 and 1."""
    notes = pod["metadata"].get("annotations") or {}
    index, failures = (
        number(notes.get(f"batch.kubernetes.io/job-{name}", ""), 0)
        for name in ("completion-index", "index-failure-count")
    )
    return Member(index, 1 + failures)


def topology_of(job: Object | None) -> Topology:
    """The topology that the Job's annotation names; a single pod where it has none."""
    notes = (job or {}).get("metadata", {}).get("annotations") or {}
    try:
        return Topology.parse(notes[labels.TOPOLOGY])
    except (KeyError, ValueError):
        return Topology()


def by_index(pods: Iterable[Object]) -> dict[int, Object]:
    """The pod that counts at each index: its latest attempt, as an earlier one is over. `pods` has
    one state of each.
    """
    members: dict[int, Object] = {}
    for pod in pods:
        index = member_of(pod).rank
        members[index] = max(members.get(index, pod), pod, key=_age)
    return members


def deciding(pods: Iterable[Object]) -> Object | None:
    """The pod that decides how a run with these pods is; None without pods.

    The one that failed first; else one that has not started, as all start together; else that of
    the lowest index.
    """
    return min(by_index(pods).values(), key=_weight, default=None)


def _age(pod: Object) -> tuple[int, str, str]:
    metadata = pod["metadata"]
    return member_of(pod).attempt, metadata["creationTimestamp"], metadata.get("uid", "")


def _weight(pod: Object) -> tuple[int, float, int]:
    index = member_of(pod).rank
    if model.outcome(pod) == "Failed":
        stamp = model.terminated(pod).get("finishedAt")
        return 0, seconds(stamp) if stamp else math.inf, index
    return 2 if model.has_started(pod) else 1, 0.0, index
