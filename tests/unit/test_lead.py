"""Which of several controllers leads: decided by a Lease, on an API server that answers or does
not.
"""

import pytest

from mlflow_backend.controller.lead import LEASE_S, NAME, RENEW_S, RETRY_S, Lease, lead
from mlflow_backend.errors import ClusterUnavailable
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.leases import Leases
from tests.bed.apiserver import Answer, refusal


class Time:
    """The time of one replica: it passes by what is slept."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Store:
    """The Lease as an API server keeps it: a writer must have read what is there.

    `down`: it answers 503 to all.
    """

    def __init__(self, api):
        self.lease, self.version, self.down = None, 0, False
        for what in ("get leases", "create leases", "update leases"):
            api.answers[what] = [self.answer]

    def answer(self, call):
        if self.down:
            return refusal(503, "etcd is away")
        if call.what == "get leases":
            return Answer(body=self.lease) if self.lease else refusal(404)
        if call.what == "create leases" and self.lease:
            return refusal(409, "exists", "AlreadyExists")
        if call.what == "update leases" and call.body["metadata"]["resourceVersion"] != str(
            self.version
        ):
            return refusal(409)
        self.version += 1
        spec = {key: value for key, value in call.body["spec"].items() if value is not None}
        self.lease = {
            **call.body,
            "metadata": {**call.body["metadata"], "resourceVersion": str(self.version)},
            "spec": spec,
        }
        return Answer(body=self.lease)


@pytest.fixture
def store(api):
    return Store(api)


@pytest.fixture
def replica(cluster):
    def make(identity):
        clock = Time()
        return Lease(Leases(cluster), identity, clock), clock

    return make


def test_the_first_leads_and_the_second_only_when_the_lease_has_not_changed_for_its_duration(
    store, replica
):
    (first, _), (second, clock) = replica("first"), replica("second")
    assert first.take() and not second.take()
    clock.sleep(LEASE_S - 0.1)
    assert first.take() and not second.take(), "it was renewed, so its duration begins again"
    clock.sleep(LEASE_S - 0.1)
    assert not second.take()
    clock.sleep(0.1)
    assert second.take() and not first.take()
    assert (
        store.lease["spec"]["holderIdentity"] == "second"
        and store.lease["spec"]["leaseTransitions"] == 1
    )


def test_the_clocks_of_the_machines_need_not_agree(store, replica):
    first, second = replica("first")[0], replica("second")[0]
    assert first.take()
    store.lease["spec"]["renewTime"] = "2001-01-01T00:00:00.000000Z"
    assert not second.take()


def test_of_two_that_write_at_once_one_leads(api, store, replica):
    first, second = replica("first")[0], replica("second")[0]
    first.take()
    store.lease["spec"].pop("holderIdentity")
    before = dict(store.lease)
    assert first.take()
    api.answers["get leases"] = [Answer(body=before)]
    assert not second.take() and store.lease["spec"]["holderIdentity"] == "first"


def test_who_ends_in_order_lets_the_next_one_begin_at_once_and_no_other_s_lease_is_released(
    store, replica
):
    first, second = replica("first")[0], replica("second")[0]
    first.take()
    second.release()
    assert store.lease["spec"]["holderIdentity"] == "first"
    first.release()
    assert second.take()


def test_a_server_that_does_not_answer_is_a_failed_attempt_that_is_not_repeated_inside(
    api, store, replica, cluster
):
    lease, _ = replica("first")
    store.down = True
    assert not lease.take()
    lease.release()
    api.answers["get leases"] = [refusal(429, Retry_After="30")]
    assert not lease.take() and cluster.slept == [] and len(api.calls) == 3


def test_a_leader_stops_before_another_one_can_have_taken_its_lease(store, cluster):
    clock, lost_at = Time(), []

    def sleep(seconds):
        clock.sleep(seconds)
        store.down = clock.now >= 20

    lead(Leases(cluster), "first", lambda: None, lambda: lost_at.append(clock.now), sleep, clock)
    assert (
        len(lost_at) == 1
        and 20 <= lost_at[0] <= 20 - RETRY_S + RENEW_S + RETRY_S < 20 - RETRY_S + LEASE_S
    )


class Hanging:
    """Leases of an API server that answers at first; then a read takes nearly all of its time, and
    a write all of it.
    """

    def __init__(self, clock, spec):
        self._clock, self._lease, self.hung = clock, {"spec": spec}, []

    def read(self, name, timeout_s):
        if self._clock.now > 0:
            self._clock.sleep(timeout_s * 0.9)
        return self._lease

    def replace(self, lease, timeout_s):
        if self._clock.now > 0:
            self.hung.append(timeout_s)
            self._clock.sleep(timeout_s)
            raise ClusterUnavailable("timed out")
        return lease


def test_a_leader_whose_calls_hang_gives_up_in_time():
    clock, lost_at = Time(), []
    leases = Hanging(clock, {"holderIdentity": "first"})
    lead(leases, "first", lambda: None, lambda: lost_at.append(clock.now), clock.sleep, clock)
    assert leases.hung and lost_at[0] <= RENEW_S + 2 * RETRY_S < LEASE_S


def test_a_leader_that_cannot_start_gives_the_lead_up(store, cluster):
    clock, lost = Time(), []

    def broken():
        raise RuntimeError("no")

    lead(
        Leases(cluster),
        "first",
        broken,
        lambda: lost.append(True),
        lambda seconds: clock.sleep(seconds),
        clock,
    )
    assert lost == [True]


def test_a_follower_waits_until_the_leader_has_gone(store, cluster, kubeconfig):
    Lease(Leases(Cluster()), "other").take()
    clock, events = Time(), []

    def sleep(seconds):
        clock.sleep(seconds)
        events.append("waits")
        store.down = "started" in events

    lead(
        Leases(cluster),
        "first",
        lambda: events.append("started"),
        lambda: events.append("lost"),
        sleep,
        clock,
    )
    assert events.index("started") >= LEASE_S // RETRY_S and events[-1] == "lost"
    assert store.lease["metadata"]["name"] == NAME
