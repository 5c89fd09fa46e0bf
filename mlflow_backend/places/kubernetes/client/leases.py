"""The Leases of a namespace (https://kubernetes.io/docs/concepts/architecture/leases/)."""

from typing import Any

from mlflow_backend.places.kubernetes.client.answers import Object
from mlflow_backend.places.kubernetes.client.api import Cluster


class Leases:
    """Each call is one attempt of about `timeout_s` seconds, and raises ClusterError."""

    def __init__(self, cluster: Cluster) -> None:
        self._connection, self._namespace = cluster.connection, cluster.namespace

    def read(self, name: str, timeout_s: float) -> dict[str, Any] | None:
        """The Lease; None if there is none of this name."""
        return self._connection.find(
            f"get Lease {name}",
            lambda api, **raw: api.coordination.read_namespaced_lease(name, self._namespace, **raw),
            none_on=(404,),
            timeout_s=timeout_s,
            repeats=0,
        )

    def create(self, lease: Object, timeout_s: float) -> dict[str, Any] | None:
        """Create a Lease; None if there is one of its name."""
        return self._connection.find(
            f"create Lease {lease['metadata']['name']}",
            lambda api, **raw: api.coordination.create_namespaced_lease(
                self._namespace, lease, **raw
            ),
            none_on=(409,),
            is_safe=False,
            timeout_s=timeout_s,
            repeats=0,
        )

    def replace(self, lease: Object, timeout_s: float) -> dict[str, Any] | None:
        """Replace the Lease, whose resourceVersion must be the current one; None if it is not."""
        name = lease["metadata"]["name"]
        return self._connection.find(
            f"update Lease {name}",
            lambda api, **raw: api.coordination.replace_namespaced_lease(
                name, self._namespace, lease, **raw
            ),
            none_on=(404, 409),
            is_safe=False,
            timeout_s=timeout_s,
            repeats=0,
        )
