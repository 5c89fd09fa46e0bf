"""Create what a run needs in a cluster, in an order in which every step that breaks off can be told
and undone.
"""

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from mlflow_backend.errors import AlreadyExists, ClusterError, ComputeError
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.objects import manifest
from mlflow_backend.places.kubernetes.objects.bundle import Bundle
from mlflow_backend.tracking import runs as mlflow_runs
from mlflow_runner.contract.tags import TAG_CLUSTER, TAG_JOB, TAG_JOB_UID, TAG_SUBMITTED


@dataclass(frozen=True)
class Creation:
    """The Job of a run with its ConfigMap and Secret, which the Job owns."""

    cluster: Cluster
    run_id: str
    job: Mapping[str, Any]
    bundle: Bundle
    params: Sequence[Any]
    tags: Mapping[str, str]

    def create(self) -> dict[str, Any]:
        """The created Job. Raises ComputeError, after deleting the Job and with it all that it
        owns.

        The run's tags name the Job before it exists, so that a run without its Job is known as a
        submit that broke off; they name its uid after, without which no Job tells anything about a
        run. The run is SCHEDULED before its Job exists: later, the call could come after the
        runner's RUNNING.
        """
        mlflow_runs.schedule(self.run_id, self.params, {**self.tags, **self._place()})
        try:
            job = self.cluster.create(self.job)
        except AlreadyExists:
            raise ClusterError(
                f"Job {self.job['metadata']['name']}: another Job of this name exists: submit again"
            ) from None
        try:
            self._complete(job)
        except BaseException:
            self.undo(job)
            raise
        return job

    def undo(self, job: Mapping[str, Any]) -> None:
        """Delete the created Job, as far as the cluster lets us: with it goes all that it owns."""
        with contextlib.suppress(ComputeError):
            self.cluster.delete_job(job["metadata"]["name"], job["metadata"]["uid"])

    def _complete(self, job: Mapping[str, Any]) -> None:
        """The round trips that need the Job's uid, all at once: server and cluster may be far."""
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

    def _create_config_map(self, job: Mapping[str, Any]) -> None:
        wanted = manifest.config_map(job, self.bundle)
        try:
            self.cluster.create(wanted)
        except AlreadyExists:
            found = self.cluster.read_config_map(wanted["metadata"]["name"]) or {}
            if not _is_same(found, wanted):
                raise ClusterError(_taken("ConfigMap", wanted)) from None

    def _create_secret(self, job: Mapping[str, Any]) -> None:
        """One of the name that exists cannot be compared, as people may not read Secrets."""
        wanted = manifest.secret(job, self.bundle)
        if wanted is None:
            return
        try:
            self.cluster.create(wanted)
        except AlreadyExists:
            raise ClusterError(_taken("Secret", wanted)) from None


def _is_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a ConfigMap is ours, created by a call whose answer was lost: same content and owner,
    and not to be changed.
    """
    owners = [owner.get("uid") for owner in found.get("metadata", {}).get("ownerReferences") or ()]
    ours = [owner["uid"] for owner in wanted["metadata"]["ownerReferences"]]
    keys = ("data", "binaryData", "immutable")
    return owners == ours and all(found.get(key) == wanted.get(key) for key in keys)


def _taken(kind: str, wanted: Mapping[str, Any]) -> str:
    return (
        f"{kind} {wanted['metadata']['name']}: one of this name exists and is not this run's: "
        "another user created it: submit again"
    )
