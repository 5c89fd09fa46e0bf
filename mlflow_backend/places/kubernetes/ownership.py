"""Which Job is a run's: the one that the run's own tags name by name, uid and cluster. Labels alone
prove nothing: anyone who may create a Job sets them (Kubernetes controllers adopt by the owner's
uid for the same reason).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mlflow_backend.places.kubernetes.members import member_of
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.supervision.record import RunRecord
from mlflow_runner.contract.tags import (
    TAG_CLUSTER,
    TAG_INDEX,
    TAG_JOB,
    TAG_JOB_UID,
)
from mlflow_runner.contract.topology import number

Object = Mapping[str, Any]


class Claim(NamedTuple):
    """The Job that a run names: `cluster_id` is the uid of its namespace. Without `job_uid` the
    submit is under way, or broke off. `only_index` is the run's where the Job has several runs.
    """

    job_name: str
    job_uid: str | None
    cluster_id: str | None
    only_index: int | None = None


def claim_of(run: RunRecord) -> Claim | None:
    """The Job that the run's tags name.

    None where they do not say in which cluster: such a run is never settled.
    """
    tags = run.tags
    job_name, cluster_id = tags.get(TAG_JOB), tags.get(TAG_CLUSTER)
    if not (job_name and cluster_id):
        return None
    index = number(tags[TAG_INDEX], 0) if TAG_INDEX in tags else None
    return Claim(job_name, tags.get(TAG_JOB_UID), cluster_id, index)


def is_claimed(claim: Claim, run_id: str, job: Object) -> bool:
    """Whether the Job is the very one of the claim, and labelled for this run."""
    metadata = job["metadata"]
    return (metadata["name"], metadata["uid"]) == (claim.job_name, claim.job_uid) and is_labelled(
        run_id, job
    )


def is_labelled(run_id: str, job: Object) -> bool:
    """Whether the labels say that this package made the Job for this run: necessary for every
    deletion, and never enough.
    """
    found = job["metadata"].get("labels") or {}
    return found.get(labels.MANAGED_BY) == labels.PREFIX and found.get(labels.RUN) == run_id


def is_part_of(claim: Claim, pod: Object) -> bool:
    """Whether the Job of the claim made the pod, and the pod is of the claim's index."""
    is_own = owner_uid(pod) == claim.job_uid
    return is_own and claim.only_index in (None, member_of(pod).rank)


def owner_uid(pod: Object) -> str | None:
    """The uid of the Job that made the pod."""
    return next(
        (
            owner["uid"]
            for owner in pod["metadata"].get("ownerReferences") or ()
            if owner["kind"] == "Job"
        ),
        None,
    )
