"""Only the Job that a run names by name, uid and cluster says anything about the run, and only that
one is ever deleted.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.places.kubernetes.look import Observation, look
from mlflow_backend.places.kubernetes.members import deciding
from mlflow_backend.places.kubernetes.objects import labels
from mlflow_backend.places.kubernetes.ownership import Claim, claim_of
from mlflow_backend.places.kubernetes.settle import judge, settle
from mlflow_backend.supervision.record import RunRecord, has_ended
from mlflow_runner.contract.ending import end_tags
from mlflow_runner.contract.tags import TAG_CLUSTER, TAG_JOB, TAG_JOB_UID, TAG_SUBMITTED

NOW_S = 1767225600.0
BORN = "2026-01-01T00:00:00Z"
RUN = "r" * 32
TAGS = {TAG_JOB: "j", TAG_JOB_UID: "u", TAG_CLUSTER: "c", TAG_SUBMITTED: BORN}
FAILED = {
    "conditions": [
        {"type": "Failed", "status": "True", "reason": "x", "message": "failed with exit code 3"}
    ]
}


def job(name="j", uid="u", run_id=RUN, status=None, **fields):
    marks = {labels.MANAGED_BY: labels.PREFIX, labels.RUN: run_id}
    return {
        "metadata": {
            "name": name,
            "uid": uid,
            "labels": marks,
            "creationTimestamp": BORN,
            **fields,
        },
        "spec": {},
        "status": status or {},
    }


def pod(name, owner="u", born=BORN, phase="Running", attempt=None):
    notes = (
        {"batch.kubernetes.io/job-index-failure-count": str(attempt)} if attempt is not None else {}
    )
    owners = [{"kind": "Job", "name": "j", "uid": owner}]
    metadata = {
        "name": name,
        "uid": name,
        "labels": {labels.RUN: RUN},
        "annotations": notes,
        "creationTimestamp": born,
    }
    return {
        "metadata": {**metadata, "ownerReferences": owners},
        "spec": {"containers": []},
        "status": {"phase": phase},
    }


class Namespace:
    """The objects of one namespace with the uid `identity`, and what was deleted from it."""

    def __init__(self, *jobs, pods=(), identity="c"):
        self._jobs, self._pods, self._identity = (
            {item["metadata"]["name"]: item for item in jobs},
            pods,
            identity,
        )
        self.deleted = []

    def identity(self):
        return self._identity

    def now_s(self):
        return NOW_S + 3600

    def read_job(self, name):
        return self._jobs.get(name)

    def list_objects(self, kind, selector):
        return list(self._pods), "1"

    def list_events(self, kind, name):
        return []

    def delete_job(self, name, uid):
        self.deleted.append((name, uid))


class Store:
    """MLflow for one run."""

    def __init__(self, run):
        self.run = run
        self.ends = []

    def read(self, run_id):
        return self.run

    def end(self, run_id, end):
        self.ends.append((end.status, end.cause))

    def children(self, run_id):
        return []


def known(status="RUNNING", **tags):
    return RunRecord(RUN, status, {**TAGS, **tags}, NOW_S)


def without(*names, status="RUNNING"):
    return RunRecord(
        RUN, status, {name: value for name, value in TAGS.items() if name not in names}, NOW_S
    )


def settled(run, namespace):
    store = Store(run)
    verdict = settle(store, namespace, run, look(namespace, run))
    return verdict.ended, store.ends, namespace.deleted


def belongs(run, job_, cluster_id):
    return look(Namespace(job_, identity=cluster_id), run).job is not None


FORGED = {
    "another name": job(name="other"),
    "another uid": job(uid="forged"),
    "labelled for another run": job(run_id="x" * 32),
    "without our label": job(labels={labels.RUN: RUN}),
    "without labels": job(labels=None),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_job_that_the_run_does_not_name_is_not_its_own(kind):
    assert belongs(known(), job(), "c")
    assert not belongs(known(), FORGED[kind], "c")


@pytest.mark.parametrize(
    "run",
    [
        without(TAG_JOB),
        without(TAG_JOB_UID),
        without(TAG_CLUSTER),
        known(**{TAG_CLUSTER: "elsewhere"}),
    ],
)
def test_a_run_whose_tags_do_not_name_job_uid_and_cluster_owns_no_job(run):
    assert not belongs(run, job(), "c")


@given(
    st.sampled_from(["j", "k"]),
    st.sampled_from(["u", "v"]),
    st.sampled_from(["c", "d", None]),
    st.sampled_from([RUN, "s" * 32]),
)
def test_all_of_name_uid_cluster_and_label_have_to_agree(name, uid, cluster_id, run_id):
    assert belongs(known(), job(name, uid, run_id), cluster_id) == (
        (name, uid, cluster_id, run_id) == ("j", "u", "c", RUN)
    )


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED", "KILLED"])
def test_a_run_without_a_cluster_is_not_settled_and_loses_no_job(status):
    namespace = Namespace(job("prod-migration", labels=None), job(status=FAILED))
    assert settled(without(TAG_CLUSTER, TAG_JOB_UID, status=status), namespace) == (False, [], [])


def test_a_run_of_another_cluster_is_not_settled_and_loses_no_job():
    assert settled(known("KILLED"), Namespace(job(), identity="another")) == (False, [], [])
    assert settled(known("KILLED"), Namespace(job(), identity=None)) == (False, [], [])


def test_a_killed_run_does_not_take_a_job_of_other_people_with_it():
    assert settled(known("KILLED"), Namespace(job(labels=None))) == (
        True,
        [("KILLED", "Cancelled")],
        [],
    )
    assert settled(known("KILLED"), Namespace(job(uid="v"))) == (
        True,
        [("KILLED", "Cancelled")],
        [],
    )
    assert settled(known("KILLED"), Namespace(job())) == (
        True,
        [("KILLED", "Cancelled")],
        [("j", "u")],
    )


def test_a_job_of_the_same_name_but_another_uid_counts_as_gone():
    assert settled(known(), Namespace(job(uid="v", status=FAILED))) == (
        True,
        [("KILLED", "Deleted")],
        [],
    )


def test_pods_that_the_job_did_not_make_tell_nothing():
    foreign = pod("forged", owner="v", phase="Failed", born="2026-01-01T01:00:00Z")
    found = look(Namespace(job(), pods=[foreign, pod("mine")]), known())
    assert found.pod["metadata"]["name"] == "mine"


def test_the_latest_attempt_counts_whatever_the_order_of_creation():
    first, second = (
        pod("a", attempt=0, born="2026-01-01T00:00:09Z"),
        pod("b", attempt=1, born="2026-01-01T00:00:00Z"),
    )
    assert deciding([first, second]) is deciding([second, first]) is second
    older, newer = pod("a"), pod("b", born="2026-01-01T00:00:01Z")
    assert deciding([newer, older]) is newer and deciding([]) is None


def test_the_earlier_job_of_a_continued_run_tells_nothing():
    earlier = Observation(None, None, (), NOW_S + 3600, claim=Claim("j", "earlier", "c"))
    assert not judge(known(), earlier).ended
    store, namespace = Store(known()), Namespace(job())
    assert not settle(store, namespace, known(**{TAG_JOB_UID: "earlier"}), earlier).ended, (
        "continued after it was read first"
    )
    assert (store.ends, namespace.deleted) == ([], [])


def test_a_submit_that_broke_off_is_ended_and_its_job_deleted_by_uid():
    run = without(TAG_JOB_UID)
    assert settled(run, Namespace(job())) == (True, [("FAILED", "SubmitError")], [("j", "u")])
    assert settled(run, Namespace(job(labels=None))) == (True, [("FAILED", "SubmitError")], [])


def test_the_job_of_a_submit_under_way_tells_nothing():
    young = Observation(
        None, None, (), NOW_S + 59, claim=Claim("j", None, "c"), stray=job(status=FAILED)
    )
    verdict = judge(without(TAG_JOB_UID), young)
    assert (verdict.ended, verdict.look_again_s, verdict.remove_job) == (
        False,
        pytest.approx(1),
        False,
    )


@pytest.mark.parametrize("cause", ["Cancelled", "SubmitError"])
def test_the_job_of_a_submit_that_was_given_up_is_deleted_also_when_the_end_is_known(cause):
    run = RunRecord(
        RUN, "FAILED", {**without(TAG_JOB_UID).tags, **end_tags("FAILED", cause, "x", None)}, NOW_S
    )
    assert settled(run, Namespace(job())) == (True, [], [("j", "u")])


def test_a_run_deleted_in_mlflow_is_a_cancelled_one():
    run = RunRecord(RUN, "RUNNING", TAGS, NOW_S, is_deleted=True)
    assert has_ended(run)
    assert settled(run, Namespace(job())) == (True, [], [("j", "u")])
    assert settled(run, Namespace(job(uid="v"))) == (True, [], [])


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_that_ended_before_is_never_rewritten_by_a_forged_job(status):
    ended = RunRecord(RUN, status, {**TAGS, **end_tags(status, None, None, 0)}, NOW_S)
    assert settled(
        ended,
        Namespace(
            job(uid="forged", status=FAILED), pods=[pod("forged", owner="forged", phase="Failed")]
        ),
    ) == (
        True,
        [],
        [],
    )


def test_a_run_that_was_never_sent_anywhere_is_not_touched():
    plain = RunRecord(RUN, "RUNNING", {}, NOW_S)
    assert claim_of(plain) is None
    assert settled(plain, Namespace(job(status=FAILED))) == (False, [], [])


def test_an_end_that_is_written_by_half_is_not_taken_for_a_cancel():
    """The second attempt has written the tags of its end, its status comes next; the status is
    still the first attempt's.
    """
    torn = RunRecord(RUN, "KILLED", {**TAGS, **end_tags("FINISHED", None, None, 0)}, NOW_S)
    namespace = Namespace(job(), pods=[pod("b")])
    assert settled(torn, namespace) == (False, [], [])
