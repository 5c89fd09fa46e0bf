"""When a run is looked at again, and when it ended: from its Job and pod. Pure."""

from mlflow_backend.places.kubernetes import diagnose
from mlflow_backend.places.kubernetes.look import Observation
from mlflow_backend.timestamps import seconds

WAITING_S = (10.0, 300.0)
"""A run that has not started is looked at again after as long as it has waited so far, within these
limits.
"""


def has_waited(seen: Observation) -> bool:
    """Whether the run has waited for its start long enough for events to explain it."""
    return not diagnose.has_started(seen.pod) and age_s(seen) >= WAITING_S[0]


def next_look_s(seen: Observation, *others_s: float | None) -> float | None:
    """In how many seconds to look at the run if nothing changes, the shortest of its own interval
    and the others; None for never.
    """
    waits = seen.job is not None and not diagnose.has_started(seen.pod)
    own_s = min(max(age_s(seen), WAITING_S[0]), WAITING_S[1]) if waits else None
    return min((time_s for time_s in (own_s, *others_s) if time_s is not None), default=None)


def age_s(seen: Observation) -> float:
    """The seconds since the Job's creation by the API server's clock; 0 without a Job."""
    return seen.now_s - seconds(seen.job["metadata"]["creationTimestamp"]) if seen.job else 0.0


def ended_s(seen: Observation) -> float | None:
    """When the container or the Job ended, in seconds since the epoch, by the cluster's clock."""
    statuses = (seen.pod or {}).get("status", {}).get("containerStatuses") or ()
    times = [
        status["state"]["terminated"]["finishedAt"]
        for status in statuses
        if "terminated" in status.get("state", {})
    ]
    times += [
        item["lastTransitionTime"]
        for item in (seen.job or {}).get("status", {}).get("conditions") or ()
        if item["type"] == "Failed"
    ]
    return max(map(seconds, filter(None, times)), default=None)
