"""Leader election among replicas, with a Lease
(https://kubernetes.io/docs/concepts/architecture/leases/).

The rules are client-go's (tools/leaderelection): a Lease that has not changed for its duration, by
the reader's clock, may be acquired; a holder that cannot renew it in time stops before another
replica can acquire it.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes.client.answers import Object
from mlflow_backend.places.kubernetes.client.leases import Leases

log = logging.getLogger("mlflow_compute")

NAME = "mlflow-compute-controller"
LEASE_S, RENEW_S, RETRY_S = 15, 10, 2
ATTEMPT_S = 5.0
"""How long one attempt may take: an API server that hangs must not keep the leader from stopping in
time.
"""
LEAST_S = 0.1
NEW = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}}


class Lease:
    """The Lease from the view of one replica (`identity`).

    An API server that does not answer is one failed attempt.
    """

    def __init__(
        self, leases: Leases, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._leases, self._identity, self._clock = leases, identity, clock
        self._observed: Object | None = None
        self._observed_at = 0.0

    def take(self, timeout_s: float = ATTEMPT_S) -> bool:
        """Acquire or renew the Lease in about `timeout_s` seconds; whether this replica has it."""
        try:
            return self._take(timeout_s)
        except ClusterError as error:
            log.warning("the Lease %s could not be acquired: %s", NAME, error)
            return False

    def release(self) -> None:
        """Release the Lease, if this replica holds it, so that the next one can start at once."""
        try:
            lease = self._leases.read(NAME, ATTEMPT_S)
            if lease and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                spec = {**lease["spec"], "holderIdentity": None, "renewTime": _now()}
                self._leases.replace({**lease, "spec": spec}, ATTEMPT_S)
        except ClusterError as error:
            log.warning("the Lease %s could not be released: %s", NAME, error)

    def _take(self, timeout_s: float) -> bool:
        until = self._clock() + timeout_s
        lease = self._leases.read(NAME, timeout_s)
        spec = (lease or {}).get("spec") or {}
        if spec != self._observed:
            self._note(spec)
        expires_at = self._observed_at + (spec.get("leaseDurationSeconds") or LEASE_S)
        if spec.get("holderIdentity") not in (None, self._identity) and self._clock() < expires_at:
            return False
        write = self._leases.replace if lease else self._leases.create
        stored = write(
            {**(lease or NEW), "spec": self._spec(spec)}, max(LEAST_S, until - self._clock())
        )
        if stored is not None:
            self._note(stored["spec"])
        return stored is not None

    def _note(self, spec: Object) -> None:
        self._observed, self._observed_at = spec, self._clock()

    def _spec(self, before: Object) -> dict[str, Any]:
        now, is_renewal = _now(), before.get("holderIdentity") == self._identity
        transitions = before.get("leaseTransitions") or 0
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_S,
            "acquireTime": before.get("acquireTime") if is_renewal else now,
            "renewTime": now,
            "leaseTransitions": transitions if is_renewal or not before else transitions + 1,
        }


def lead(
    leases: Leases,
    identity: str,
    started: Callable[[], None],
    lost: Callable[[], None],
    sleep: Callable[[float], Any] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait for the Lease, call `started` in a thread, and return only when the Lease is lost or
    `started` fails, after calling `lost`.
    """
    lease = Lease(leases, identity, clock)
    while not lease.take():
        sleep(RETRY_S)
    failed = threading.Event()

    def start() -> None:
        try:
            started()
        except Exception:
            log.exception("the leader could not start")
            failed.set()

    threading.Thread(target=start, daemon=True, name="start").start()
    renewed_at = clock()
    while not failed.is_set() and (left_s := renewed_at + RENEW_S - clock()) > 0:
        at = clock()
        if lease.take(min(ATTEMPT_S, left_s)):
            renewed_at = at
        sleep(RETRY_S)
    lost()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
