"""Create what a run needs in a cluster, in an order in which every interrupted step can be detected
and undone.
"""

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from mlflow_backend.errors import AlreadyExists, ClusterError, ComputeError
from mlflow_backend.places.kubernetes.client.answers import Object
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.objects import manifest
from mlflow_backend.places.kubernetes.objects.bundle import Bundle
from mlflow_backend.tracking import runs as mlflow_runs
from mlflow_runner.contract.tags import TAG_CLUSTER, TAG_JOB, TAG_JOB_UID, TAG_SUBMITTED

AGAIN = "submit again"


@dataclass(frozen=True)
class Creation:
    """The Job of a run with its ConfigMap and Secret, which the Job owns."""

    cluster: Cluster
    run_id: str
    job: Object
    bundle: Bundle
    params: Sequence[Any]
    tags: Mapping[str, str]

    def create(self) -> dict[str, Any]:
        """Create all objects; the created Job. Raises ComputeError, after deleting the Job and with
        it all that it owns.

        The run's tags name the Job before it exists, so that a run without its Job is recognized as
        an interrupted submit; they name its uid afterwards, without which a Job proves nothing
        about a run. The run is SCHEDULED before its Job exists: a later call could follow the
        runner's RUNNING.
        """
        mlflow_runs.schedule(self.run_id, self.params, {**self.tags, **self._place()})
        try:
            job = self.cluster.create(self.job)
        except AlreadyExists:
            raise ClusterError(
                f"Job {self.job['metadata']['name']}: another Job of this name exists",
                code="AlreadyExists",
                hint=AGAIN,
            ) from None
        try:
            self._complete(job)
        except BaseException:
            self.undo(job)
            raise
        return job

    def undo(self, job: Object) -> None:
        """Delete the created Job and with it all that it owns, if the cluster allows it."""
        with contextlib.suppress(ComputeError):
            self.cluster.delete_job(job["metadata"]["name"], job["metadata"]["uid"])

    def _complete(self, job: Object) -> None:
        """The calls that need the Job's uid, concurrently: server and cluster may be far away."""
        with ThreadPoolExecutor(3) as pool:
            steps = [
                pool.submit(self._create_config_map, job),
                pool.submit(self._create_secret, job),
                pool.submit(
                    mlflow_runs.log, self.run_id, tags={TAG_JOB_UID: job["metadata"]["uid"]}
                ),
            ]
            for step in steps:
                step.result()

    def _place(self) -> dict[str, str]:
        tags = {TAG_JOB: self.job["metadata"]["name"]}
        if cluster_id := self.cluster.identity():
            tags[TAG_CLUSTER] = cluster_id
        now = datetime.fromtimestamp(self.cluster.now_s(), timezone.utc)
        return {**tags, TAG_SUBMITTED: now.isoformat(timespec="seconds")}

    def _create_config_map(self, job: Object) -> None:
        own = manifest.config_map(job, self.bundle)
        try:
            self.cluster.create(own)
        except AlreadyExists:
            existing = self.cluster.read_config_map(own["metadata"]["name"]) or {}
            if not _is_same(existing, own):
                raise _foreign("ConfigMap", own) from None

    def _create_secret(self, job: Object) -> None:
        """An existing Secret of this name cannot be compared, as users may not read Secrets."""
        own = manifest.secret(job, self.bundle)
        if own is None:
            return
        try:
            self.cluster.create(own)
        except AlreadyExists:
            raise _foreign("Secret", own) from None


def _is_same(existing: Object, own: Object) -> bool:
    """Whether the existing ConfigMap is this run's, created by a call whose answer was lost: same
    content and owner, and immutable.
    """
    owners = [owner["uid"] for owner in own["metadata"]["ownerReferences"]]
    references = existing.get("metadata", {}).get("ownerReferences") or ()
    return owners == [owner.get("uid") for owner in references] and all(
        existing.get(key) == own.get(key) for key in ("data", "binaryData", "immutable")
    )


def _foreign(kind: str, own: Object) -> ClusterError:
    return ClusterError(
        f"{kind} {own['metadata']['name']}: one of this name exists and is not this run's: another "
        "user created it",
        code="AlreadyExists",
        hint=AGAIN,
    )
