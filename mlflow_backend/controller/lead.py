"""One of several replicas leads, by a Lease (https://kubernetes.io/docs/concepts/architecture/leases/)."""

from collections.abc import Callable
from typing import Any

from kubernetes import client
from kubernetes.client import ApiException
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from urllib3.exceptions import HTTPError

from mlflow_backend.cluster.api import Cluster

NAME = "mlflow-compute-controller"
LEASE_S, RENEW_S, RETRY_S = 15, 10, 2


def lead(cluster: Cluster, identity: str, started: Callable[[], None], lost: Callable[[], None]) -> None:
    """Wait until the Lease is ours, call `started` in a thread, and return only when the Lease is lost, after `lost`."""
    LeaderElection(Config(Lease(cluster, identity), LEASE_S, RENEW_S, RETRY_S, started, lost)).run()


class Lease(LeaseLock):
    """The library's lock; an API server that does not answer is one more failed attempt and no end of the process."""

    def __init__(self, cluster: Cluster, identity: str):
        super().__init__(NAME, cluster.namespace, identity)
        self.api_instance = client.CoordinationV1Api(cluster.api_client)

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        try:
            return super().get(name, namespace)
        except HTTPError as error:
            return False, ApiException(status=0, reason=str(error))

    def create(self, name: str, namespace: str, election_record: Any) -> bool:
        return self._attempt(super().create, name, namespace, election_record)

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        return self._attempt(super().update, name, namespace, updated_record)

    def release(self) -> None:
        """Let the next replica begin at once, when this one ends in order. Nothing if the Lease is not ours."""
        held, record = self.get(self.name, self.namespace)
        if held and record.holder_identity == self.identity:
            self.lease_reference.spec.holder_identity = None
            self._attempt(lambda: self.api_instance.replace_namespaced_lease(self.name, self.namespace, self.lease_reference) is not None)

    @staticmethod
    def _attempt(call: Callable[..., bool], *arguments: Any) -> bool:
        try:
            return call(*arguments)
        except (HTTPError, ApiException):
            return False
