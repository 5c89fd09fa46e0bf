"""The end of a run depends on what happened, not on who saw it first: every order of tellers and of
stale or fresh looks.
"""

import json
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_backend.errors import ClusterUnavailable, TrackingError, TrackingUnavailable
from mlflow_backend.places.kubernetes import diagnose
from mlflow_backend.places.kubernetes.look import Observation, look_for
from mlflow_backend.places.kubernetes.ownership import Claim
from mlflow_backend.places.kubernetes.settle import foresee, judge, settle
from mlflow_backend.supervision import children
from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_backend.supervision.record import RunRecord, has_ended
from mlflow_backend.timestamps import seconds
from mlflow_runner.contract.answers import Refused, RunInfo
from mlflow_runner.contract.ending import end_tags, ending
from mlflow_runner.contract.state import State
from mlflow_runner.contract.tags import (
    TAG_CAUSE,
    TAG_CLUSTER,
    TAG_JOB,
    TAG_JOB_UID,
    TAG_MESSAGE,
    TAG_NODE,
    TAG_POD,
    TAG_SUBMITTED,
    TAG_TARGET,
)
from tests.bed import objects
from tests.bed.objects import MemoryNamespace
from tests.unit.test_diagnose import disrupted, job_failed, pod, terminated, told

BORN = "2026-01-01T00:00:00Z"
NOW_S = 1767225600.0 + 60
CLAIM = Claim("j", "u", "c")
UNDER_WAY = {TAG_JOB: "j", TAG_CLUSTER: "c"}
SENT = {**UNDER_WAY, TAG_JOB_UID: "u"}
"""The tags of a run that was sent to a cluster, before and after its Job was created."""


class Store:
    """MLflow for one run: status and tags; what is written stands."""

    def __init__(self, status="RUNNING", tags=None):
        self.status, self.tags = status, {**SENT, **(tags or {})}

    def read(self, run_id):
        return RunRecord(run_id, self.status, dict(self.tags), NOW_S - 60)

    def end(self, run_id, end: Diagnosis):
        self.status = end.status
        self.tags.update(end_tags(end.status, end.cause, end.cause and end.message, end.exit_code))

    def children(self, parent):
        return ()

    def told_by_runner(self, state: State):
        end = ending(RunInfo(self.status, "", dict(self.tags)), state)
        self.tags.update(end.tags)
        for name in end.remove:
            self.tags.pop(name, None)
        self.status = end.status

    @property
    def outcome(self):
        return self.status, self.tags.get(TAG_CAUSE)


class Jobs:
    """The cluster as far as settling writes to it."""

    def __init__(self, refusal=None):
        self.deleted, self.released, self._refusal = [], [], refusal

    def delete_job(self, name, uid):
        if self._refusal:
            raise self._refusal
        self.deleted.append((name, uid))

    def release_pod(self, name, uid, by_force):
        self.released.append((name, uid, by_force))


def metadata(item, **more):
    return (
        {
            **item,
            "metadata": {
                "name": "j",
                "uid": "u",
                "creationTimestamp": BORN,
                **item.get("metadata", {}),
                **more,
            },
        }
        if item
        else None
    )


def seen(job, pod_, now_s=NOW_S, **more):
    return Observation(
        metadata(job) if job else job, metadata(pod_), (), now_s, **{"claim": CLAIM, **more}
    )


JOB = {"spec": {}, "status": {}}
RUNNING = seen(JOB, pod("Running"))
STOPPED = terminated(143, message=told("KILLED", 143, "Terminated"))
EVICTED = [disrupted("EvictionByEvictionAPI")]
FAILED_143 = job_failed(
    "PodFailurePolicy",
    "Container run for pod mlflow/x failed with exit code 143 matching FailJob rule at index 1",
)
DEADLINE = job_failed("DeadlineExceeded")


def state(status, code, cause=None):
    return State(status=status, exit_code=code, cause=cause, message=cause and f"because {cause}")


SCENARIOS = {
    # what happened: (looks in the order in which the cluster shows them, what the runner tells or
    # None, whether a user cancelled, outcome)
    "exit 0": ([RUNNING, seen(JOB, pod("Succeeded", state=terminated(0)))], state("FINISHED", 0), False, ("FINISHED", None)),
    "exit 3": (
        [RUNNING, seen(JOB, pod(state=terminated(3, message=told("FAILED", 3, "ExitCode")))), seen(job_failed("x"), None)],
        state("FAILED", 3, "ExitCode"), False, ("FAILED", "ExitCode"),
    ),
    "exit 3, the server away": (
        [RUNNING, seen(JOB, pod(state=terminated(3, message=told("FAILED", 3, "ExitCode"))))], None, False, ("FAILED", "ExitCode"),
    ),
    "container killed": ([RUNNING, seen(JOB, pod(state=terminated(137)))], None, False, ("FAILED", "Killed")),
    "evicted": (
        [RUNNING, seen(JOB, pod("Running", conditions=EVICTED)), seen(JOB, pod(state=STOPPED, conditions=EVICTED)),
         seen(job_failed("x"), pod(state=STOPPED, conditions=EVICTED))],
        state("KILLED", 143, "Terminated"), False, ("FAILED", "Evicted"),
    ),
    "evicted, the server away": (
        [RUNNING, seen(JOB, pod(state=STOPPED, conditions=EVICTED)), seen(job_failed("x"), pod(state=STOPPED, conditions=EVICTED))],
        None, False, ("FAILED", "Evicted"),
    ),
    "Job deleted": ([RUNNING, seen(None, pod("Running")), seen(None, None)], state("KILLED", 143, "Terminated"), False, ("KILLED", "Deleted")),
    "Job deleted after exit 3, the server away": (
        [RUNNING, seen(JOB, pod(state=terminated(3, message=told("FAILED", 3, "ExitCode")))),
         seen(None, pod(state=terminated(3, message=told("FAILED", 3, "ExitCode"))))], None, False, ("FAILED", "ExitCode"),
    ),
    "pod deleted": (
        [RUNNING, seen(JOB, pod("Running")), seen(FAILED_143, None)], state("KILLED", 143, "Terminated"), False, ("KILLED", "Deleted"),
    ),
    "Job deleted after exit 0": ([RUNNING, seen(None, pod("Running")), seen(None, None)], state("FINISHED", 0), False, ("FINISHED", None)),
    "deadline": (
        [RUNNING, seen(DEADLINE, pod("Running")), seen(DEADLINE, pod(state=STOPPED))],
        state("KILLED", 143, "Terminated"), False, ("FAILED", "DeadlineExceeded"),
    ),
    "cancelled": ([RUNNING, seen(None, pod("Running")), seen(None, None)], state("KILLED", 143, "Terminated"), True, ("KILLED", "Cancelled")),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
@settings(max_examples=30)
@given(data=st.data())
def test_the_end_depends_on_what_happened_and_not_on_who_saw_it_first(name, data):
    looks, tells, cancelled, outcome = SCENARIOS[name]
    store = Store()
    if cancelled:
        store.end("r", Diagnosis("KILLED", "Cancelled", "The run was cancelled"))
    last = len(looks) - 1
    steps = data.draw(
        st.lists(
            st.one_of(st.integers(0, last), *([st.just("runner")] if tells else [])), max_size=12
        )
    )
    steps = [
        step
        for index, step in enumerate(steps)
        if step != "runner" or "runner" not in steps[:index]
    ]
    if tells and "runner" not in steps:
        steps.append("runner")
    for step in [*steps, last, last]:
        if step == "runner":
            store.told_by_runner(tells)
        else:
            settle(store, Jobs(), store.read("r"), looks[step])
    assert store.outcome == outcome
    assert has_ended(store.read("r"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_settler_beside_a_live_runner_writes_nothing(name):
    store = Store()
    verdict = settle(store, Jobs(), store.read("r"), SCENARIOS[name][0][0])
    assert not verdict.ended and store.outcome == ("RUNNING", None)


@given(st.sampled_from(sorted(SCENARIOS)), st.sampled_from(sorted(SCENARIOS)))
def test_an_end_that_was_told_is_never_changed_by_a_settler(first, second):
    store = Store()
    settle(store, Jobs(), store.read("r"), SCENARIOS[first][0][-1])
    told_first = store.outcome
    settle(store, Jobs(), store.read("r"), SCENARIOS[second][0][-1])
    assert store.outcome == told_first


def test_a_run_marked_killed_between_two_attempts_is_cancelled():
    known = RunRecord("r", "KILLED", {**SENT, **end_tags("SCHEDULED", None, None, 75)}, NOW_S - 60)
    assert judge(known, RUNNING).end.cause == "Cancelled"


@pytest.mark.parametrize(("state_", "end"), [
    (terminated(3, message=told("FAILED", 3, "ExitCode")), ("FAILED", "ExitCode")),
    (terminated(3), ("KILLED", "Deleted")),
])  # fmt: skip
def test_the_last_words_of_an_attempt_after_a_stopped_one_are_believed(state_, end):
    known = RunRecord(
        "r", "KILLED", {**SENT, **end_tags("KILLED", "Terminated", "x", 143)}, NOW_S - 60
    )
    verdict = judge(known, seen(job_failed("x"), pod(state=state_)))
    assert (verdict.end.status, verdict.end.cause) == end


def test_a_run_marked_killed_in_mlflow_is_cancelled_and_loses_its_job():
    verdict = judge(RunRecord("r", "KILLED", SENT, 0), RUNNING)
    assert (verdict.end.status, verdict.end.cause, verdict.remove_job) == (
        "KILLED",
        "Cancelled",
        True,
    )


@pytest.mark.parametrize(
    ("code", "end"), [(0, ("FAILED", "MarkedFailed")), (3, ("FAILED", "ExitCode"))]
)
@pytest.mark.parametrize("words", [None, "its runner's"])
def test_a_script_that_marks_its_run_failed_and_exits_with_0_has_failed_for_every_settler(
    code, end, words
):
    message = words and told(
        "FINISHED" if code == 0 else "FAILED", code, None if code == 0 else "ExitCode"
    )
    job = (
        {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
        if code == 0
        else job_failed("x")
    )
    shown = seen(
        job, pod("Failed" if code else "Succeeded", state=terminated(code, message=message))
    )
    verdict = judge(RunRecord("r", "FAILED", SENT, 0), shown)
    assert (verdict.end.status, verdict.end.cause) == end and verdict.end.exit_code == code
    assert judge(RunRecord("r", "RUNNING", SENT, 0), shown).end.status == (
        "FAILED" if code else "FINISHED"
    )


def test_a_cancelled_run_whose_job_is_still_there_loses_it():
    known = RunRecord("r", "KILLED", {**SENT, **end_tags("KILLED", "Cancelled", "x", None)}, 0)
    assert judge(known, RUNNING).remove_job and not judge(known, seen(None, None)).remove_job


@pytest.mark.parametrize(("after_s", "ended"), [(59, False), (61, True)])
def test_a_submit_without_a_job_has_broken_off_after_a_minute_however_old_its_run_is(
    after_s, ended
):
    taken_up_again = RunRecord("r", "RUNNING", {**UNDER_WAY, TAG_SUBMITTED: BORN}, NOW_S - 86400)
    verdict = judge(
        taken_up_again, seen(None, None, NOW_S - 60 + after_s, claim=Claim("j", None, "c"))
    )
    assert (verdict.ended, verdict.end and verdict.end.cause) == (
        ended,
        "SubmitError" if ended else None,
    )


def test_a_pod_that_should_be_gone_means_a_lost_node_only_after_its_patience():
    leaving = metadata(
        pod("Running", conditions=[disrupted("DeletionByTaintManager")]), deletionTimestamp=BORN
    )
    early, late = (
        judge(RunRecord("r", "RUNNING", SENT, 0), seen(JOB, leaving, NOW_S - 60 + after))
        for after in (29, 31)
    )
    assert not early.ended and early.look_again_s == pytest.approx(1)
    assert (late.end.cause, late.remove_job) == ("NodeLost", True)


def test_with_retries_a_pod_on_a_lost_node_is_released_and_the_run_goes_on():
    leaving = metadata(
        pod("Running", conditions=[disrupted("DeletionByTaintManager")]), deletionTimestamp=BORN
    )
    verdict = judge(
        RunRecord("r", "RUNNING", SENT, 0),
        seen({"spec": {"backoffLimitPerIndex": 2}, "status": {}}, leaving),
    )
    assert (verdict.ended, verdict.end, verdict.release_pod) == (False, None, True)


def test_an_earlier_pod_does_not_tell_the_end_of_a_run_that_another_has_taken_over():
    told_by_second = RunInfo("RUNNING", "", {"compute.pod": "b", "compute.attempt": "2"})
    assert (
        ending(
            told_by_second,
            State(status="FAILED", exit_code=1, cause="ExitCode", pod="a", attempt=1),
        )
        is None
    )
    # two pods for one Job (kubernetes#130103)
    same_attempt = RunInfo("RUNNING", "", {"compute.pod": "b"})
    assert ending(same_attempt, State(status="FINISHED", exit_code=0, pod="a")) is None
    assert ending(same_attempt, State(status="FINISHED", exit_code=0, pod="b")).status == "FINISHED"


@pytest.mark.parametrize(("status", "tags", "told"), [
    ("KILLED", end_tags("KILLED", "Deleted", "x", None), True),
    ("KILLED", end_tags("KILLED", "Terminated", "x", 143), False),  # its Job may go on
    # between the writes of a retry
    ("KILLED", {**end_tags("KILLED", "Terminated", "x", 143), **end_tags("FINISHED", None, None, 0)}, False),
    ("KILLED", end_tags("FINISHED", None, None, 0), False),
    ("FINISHED", {}, False),  # by the script itself
    ("RUNNING", end_tags("FINISHED", None, None, 0), False),
])  # fmt: skip
def test_an_end_is_believed_only_where_its_tags_and_its_status_agree(status, tags, told):
    assert has_ended(RunRecord("r", status, tags, 0)) is told


def at(seconds_after_birth):
    return (
        datetime.fromtimestamp(NOW_S - 60 + seconds_after_birth, timezone.utc)
        .isoformat()
        .replace("+00:00", "Z")
    )


def waiting(reason, scheduled_s, **more):
    status = {"name": "run", "state": {"waiting": {"reason": reason, "message": "m"}}}
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(scheduled_s)}
    return {"spec": {"containers": [{"name": "run", "image": "i"}], "nodeName": "n"},
            "status": {"phase": "Pending", "containerStatuses": [status], "conditions": [condition], **more}}  # fmt: skip


def happened(reason, first_s):
    return {"reason": reason, "firstTimestamp": at(first_s), "message": "m"}


@pytest.mark.parametrize(("found", "events", "patience_s"), [
    (waiting("ErrImagePull", 600), [happened("Failed", 601)], 120),
    (waiting("ErrImagePull", 600), [], 120),
    (waiting("ImagePullBackOff", 600), [happened("Failed", 601), happened("BackOff", 620)], 120),
    (waiting("CreateContainerConfigError", 600), [happened("Pulled", 602), happened("Failed", 603)], 30),
    (waiting("ContainerCreating", 600), [happened("Scheduled", 600), happened("FailedMount", 601)], 300),
    (waiting("ContainerCreating", 600), [{"reason": "FailedMount", "eventTime": at(601), "message": "m"}], 300),
])  # fmt: skip
def test_the_patience_with_a_trouble_counts_from_its_beginning_and_not_from_the_pods(
    found, events, patience_s
):
    """A pod that waited ten minutes for a node meets its first error: others would have failed it
    at once.
    """
    began_s = max(
        [
            600,
            *(
                seconds(item.get("firstTimestamp") or item["eventTime"]) - NOW_S + 60
                for item in events[-1:]
                if patience_s != 120
            ),
        ]
    )

    def look(after_s):
        return Observation(
            metadata(JOB), metadata(found), events, NOW_S - 60 + after_s, claim=CLAIM
        )

    young, old = foresee(look(began_s + 1)), foresee(look(began_s + patience_s + 2))
    assert not young.ended and young.look_again_s == pytest.approx(patience_s, abs=3)
    assert old.ended and old.end.status == "FAILED" and old.remove_job


@given(
    after_s=st.floats(0, 2000),
    scheduled_s=st.floats(0, 1000),
    reason=st.sampled_from(["ErrImagePull", "CreateContainerError", "ContainerCreating"]),
)
def test_a_later_look_never_has_more_patience(after_s, scheduled_s, reason):
    found = waiting(reason, scheduled_s)
    looks = [
        foresee(
            Observation(
                metadata(JOB), metadata(found), [], NOW_S - 60 + scheduled_s + passed_s, claim=CLAIM
            )
        )
        for passed_s in (after_s, after_s + 10)
    ]
    left = [0.0 if verdict.ended else verdict.look_again_s for verdict in looks]
    assert left == [None, None] or left[1] <= left[0]


def beside(run_state, phase="Running"):
    statuses = [{"name": "sidecar", "state": {"running": {}}}, {"name": "run", "state": run_state}]
    spec = {"containers": [{"name": "sidecar", "image": "istio"}, {"name": "run", "image": "i"}]}
    return {"spec": spec, "status": {"phase": phase, "containerStatuses": statuses}}


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(0, ("FINISHED", None)), (3, ("FAILED", "ExitCode")), (137, ("FAILED", "Killed"))],
)
def test_the_end_of_the_runs_container_is_the_runs_end_and_its_job_goes_though_a_sidecar_stays(
    code, outcome
):
    store, jobs = Store(), Jobs()
    verdict = settle(store, jobs, store.read("r"), seen(JOB, beside(terminated(code))))
    assert store.outcome == outcome and verdict.remove_job
    again = judge(store.read("r"), seen(JOB, beside(terminated(code))))
    assert again.ended and again.end is None and again.remove_job, (
        "also where the runner itself has told the end"
    )


def test_a_sidecar_that_is_over_says_nothing_about_the_run():
    found = beside({"running": {}})
    found["status"]["containerStatuses"][0]["state"] = terminated(1)
    assert not foresee(seen(JOB, found)).ended


def test_an_init_container_that_fails_is_named():
    init = [{"name": "prepare", "state": terminated(9)}]
    found = {"spec": {"containers": [{"name": "run"}]}, "status": {"phase": "Failed", "initContainerStatuses": init,
             "containerStatuses": [{"name": "run", "state": {"waiting": {"reason": "PodInitializing"}}}]}}  # fmt: skip
    end = foresee(seen(job_failed("BackoffLimitExceeded"), found)).end
    assert (end.status, end.cause) == ("FAILED", "InitContainerFailed") and (
        "'prepare' failed with exit code 9"
    ) in end.message


def test_an_init_container_whose_image_cannot_be_pulled_is_no_start_that_lasts_for_ever():
    found = waiting(
        "PodInitializing",
        0,
        initContainerStatuses=[
            {"name": "prepare", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
        ],
    )
    verdict = foresee(
        Observation(metadata(JOB), metadata(found), [], NOW_S - 60 + 121, claim=CLAIM)
    )
    assert verdict.end.cause == "ImagePullError" and "container prepare" in verdict.end.message


@pytest.mark.parametrize(("state", "outcome"), [
    (terminated(137, reason="OOMKilled"), ("FAILED", "OOMKilled", 137)),
    (terminated(3), ("FAILED", "ExitCode", 3)),
    (terminated(0), ("FINISHED", None, 0)),
])  # fmt: skip
def test_a_native_sidecar_that_is_stopped_after_the_run_does_not_tell_its_end(state, outcome):
    found = pod("Failed" if outcome[2] else "Succeeded", state=state)
    found["status"]["initContainerStatuses"] = [{"name": "proxy", "state": terminated(143)}]
    end = foresee(seen(job_failed("x") if outcome[2] else JOB, found)).end
    assert (end.status, end.cause, end.exit_code) == outcome


def of_container(event, path):
    return {**event, "involvedObject": {"fieldPath": path}}


@pytest.mark.parametrize(("found", "events", "patience_s"), [
    (waiting("CreateContainerConfigError", 1), [happened("Failed", 5), happened("Pulled", 30), happened("Failed", 600)], 30),
    (waiting("ErrImagePull", 1), [of_container(happened("Failed", 5), "spec.initContainers{prepare}"),
                                  of_container(happened("Failed", 600), "spec.containers{run}")], 120),
])  # fmt: skip
def test_a_trouble_that_is_over_takes_nothing_from_the_patience_with_the_next(
    found, events, patience_s
):
    young, old = (
        foresee(
            Observation(
                metadata(JOB), metadata(found), events, NOW_S - 60 + 600 + after_s, claim=CLAIM
            )
        )
        for after_s in (1, patience_s + 1)
    )
    assert not young.ended and young.look_again_s == pytest.approx(patience_s - 1)
    assert old.ended and old.end.status == "FAILED"


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda item: st.lists(item, max_size=3) | st.dictionaries(
    st.sampled_from(["status", "exit_code", "cause", "message", "reported"]), item, max_size=5), max_leaves=8)  # fmt: skip


@given(message=JSON.map(json.dumps) | st.text(max_size=30), code=st.integers(0, 255))
def test_whatever_a_termination_message_holds_the_container_has_ended_as_the_kubelet_saw(
    message, code
):
    end = foresee(
        seen(
            job_failed("x"),
            pod("Failed" if code else "Succeeded", state=terminated(code, message=message)),
        )
    ).end
    assert end.exit_code == code and (end.status == "FINISHED") == (code == 0 and end.cause is None)


@pytest.mark.parametrize("forged", [
    {"status": "KILLED", "cause": "Cancelled", "message": "forged", "exit_code": 66},
    {"status": "FINISHED", "cause": None, "message": None, "exit_code": 0},
    {"status": "FINISHED", "cause": None, "message": None, "exit_code": 1},
    {"status": "FAILED", "cause": "ExitCode", "message": [1, 2], "exit_code": 1},
    {"status": "FAILED", "cause": "NoSuchCause", "message": "x", "exit_code": 1},
    {"status": "FAILED", "cause": ["ExitCode"], "message": "x", "exit_code": 1},
])  # fmt: skip
def test_a_termination_message_that_does_not_fit_the_exit_code_or_its_form_is_not_believed(forged):
    end = foresee(seen(job_failed("x"), pod(state=terminated(1, message=json.dumps(forged))))).end
    assert (end.status, end.cause, end.message) == (
        "FAILED",
        "ExitCode",
        "The container exited with code 1. See the log.",
    )


class Family(Store):
    """A run with nested runs, given as {id: (parent's id, status, tags)}; a search gives `page` at
    a time, and those that it finds then.
    """

    def __init__(self, below=None, page=1000, refusals=None):
        super().__init__()
        self.below = below or {
            "a": ("r", "RUNNING", {}),
            "b": ("r", "SCHEDULED", {}),
            "c": ("a", "RUNNING", {}),
        }
        self.ended, self.page, self.refusals = {}, page, dict(refusals or {})

    def children(self, parent):
        offset = 0
        while found := self._unfinished(parent.run_id)[offset : offset + self.page]:
            yield from found
            offset += self.page

    def _unfinished(self, parent_id):
        return [
            RunRecord(run_id, status, tags, 0)
            for run_id, (parent, status, tags) in self.below.items()
            if parent == parent_id
            and run_id not in self.ended
            and status in ("RUNNING", "SCHEDULED")
        ]

    def end(self, run_id, end):
        if error := self.refusals.pop(run_id, None):
            raise error
        if run_id == "r":
            super().end(run_id, end)
        else:
            self.ended[run_id] = (end.status, end.cause, end.message)


def test_runs_that_an_ended_run_left_running_end_with_it():
    runs = Family()
    settle(runs, Jobs(), runs.read("r"), seen(None, None))
    message = runs.tags[TAG_MESSAGE]
    assert runs.ended == {
        "a": ("KILLED", "Deleted", f"Its parent run r ended: {message}"),
        "b": ("KILLED", "Deleted", f"Its parent run r ended: {message}"),
        "c": ("KILLED", "Deleted", f"Its parent run a ended: {message}"),
    }
    settle(told := Family(), Jobs(), replace(runs.read("r")), seen(None, None))
    assert set(told.ended) == {"a", "b", "c"}, "also where the runner told the end"


@pytest.mark.parametrize(("tags", "ends"), [
    ({}, True),
    ({TAG_JOB: "k"}, False),
    ({TAG_TARGET: "local"}, False),  # of a runner on some machine, which tells the end
    ({TAG_TARGET: "local", TAG_NODE: "laptop"}, False),
    ({TAG_TARGET: "local", TAG_NODE: "j-x"}, True),  # that runner was in the parent's pod
])  # fmt: skip
def test_a_nested_run_that_has_a_runner_of_its_own_goes_on_unless_that_died_with_the_pod(
    tags, ends
):
    runs = Family({"a": ("r", "RUNNING", tags)})
    runs.tags[TAG_POD] = "j-x"
    settle(runs, Jobs(), runs.read("r"), seen(None, None))
    assert ("a" in runs.ended) is ends and has_ended(runs.read("r"))


@pytest.mark.parametrize("page", [1, 7, 200])
def test_all_nested_runs_end_however_many_there_are_and_though_each_end_moves_the_pages(page):
    below = {f"a{number}": ("r", "RUNNING", {}) for number in range(450)}
    below |= {f"b{number}": (f"a{number}", "RUNNING", {}) for number in range(100)} | {
        "c0": ("b0", "RUNNING", {}),
        "d0": ("c0", "RUNNING", {}),
    }
    runs = Family(below, page)
    settle(runs, Jobs(), runs.read("r"), seen(None, None))
    assert runs.ended.keys() == below.keys()


def test_a_run_that_names_a_run_below_it_as_its_parent_is_no_endless_search():
    runs = Family({"a": ("r", "RUNNING", {}), "r": ("a", "RUNNING", {})})
    settle(runs, Jobs(), runs.read("r"), seen(None, None))
    assert runs.ended.keys() == {"a"} and has_ended(runs.read("r"))


def test_more_nested_runs_than_end_at_once_are_told_and_a_second_settle_ends_them(
    monkeypatch, caplog
):
    monkeypatch.setattr(children, "CHILDREN", 4)
    runs = Family(
        {f"a{number}": ("r", "RUNNING", {}) for number in range(6)} | {"b": ("a5", "RUNNING", {})}
    )
    settle(runs, Jobs(), runs.read("r"), seen(None, None))
    assert len(runs.ended) == 4 and has_ended(runs.read("r"))
    assert (
        "run r: more than 4 of its nested runs have not ended: settle it again to end the others"
    ) in caplog.messages
    settle(runs, Jobs(), runs.read("r"), seen(None, None))
    assert runs.ended.keys() == runs.below.keys()


@pytest.mark.parametrize("dies_at", ["a", "b", "c", "r"])
def test_a_settler_that_dies_between_two_ends_loses_none_of_them(dies_at):
    runs = Family(refusals={dies_at: TrackingUnavailable("gone")})
    with pytest.raises(TrackingUnavailable):
        settle(runs, Jobs(), runs.read("r"), seen(None, None))
    assert not has_ended(runs.read("r")), "so that the next settler finds it"
    settle(runs, Jobs(), runs.read("r"), seen(None, None))
    assert has_ended(runs.read("r")) and runs.ended.keys() == {"a", "b", "c"}


@pytest.mark.parametrize(
    "error", [TrackingError("deleted meanwhile"), Refused("deleted meanwhile")]
)
def test_a_nested_run_that_cannot_be_ended_does_not_keep_its_parent_from_its_end(error, caplog):
    runs = Family(refusals={"a": error})
    settle(runs, Jobs(), runs.read("r"), seen(None, None))
    assert has_ended(runs.read("r")) and runs.ended.keys() == {"b", "c"}
    assert "run r: its nested run a could not be ended: deleted meanwhile" in caplog.messages


def test_runs_below_a_finished_run_are_left_alone():
    runs = Family()
    settle(runs, Jobs(), runs.read("r"), seen(JOB, pod("Succeeded", state=terminated(0))))
    assert not runs.ended and runs.status == "FINISHED"


def both(run_state, other_state, phase="Pending", **metadata_):
    """A pod of the run's container and a sidecar in these states."""
    found = beside(run_state, phase)
    found["status"]["containerStatuses"][0]["state"] = other_state
    return {**found, "metadata": {"name": "j-x", "uid": "p", **metadata_}}


NO_IMAGE = {"waiting": {"reason": "ImagePullBackOff", "message": "m"}}
RETRIES = {"spec": {"backoffLimitPerIndex": 2}, "status": {}}


@pytest.mark.parametrize("other", [NO_IMAGE, {"waiting": {"reason": "ContainerCreating"}}, {}])
@pytest.mark.parametrize("after_s", [0, 1000])
def test_a_run_that_runs_is_not_ended_by_an_image_of_another_container(other, after_s):
    verdict = foresee(seen(JOB, both({"running": {}}, other), NOW_S + after_s))
    assert (verdict.ended, verdict.look_again_s) == (False, None)


def test_a_run_that_waits_for_its_own_image_does_not_fail_by_that_of_another_container():
    found = both({"waiting": {"reason": "ContainerCreating"}}, NO_IMAGE)
    assert not foresee(seen(JOB, found, NOW_S + 1000)).ended
    assert "starting" in diagnose.waiting_for(found, JOB, [])


@pytest.mark.parametrize("other", [NO_IMAGE, {"running": {}}])
@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_run_that_has_ended_has_ended_whatever_the_phase_of_its_pod(phase, other):
    store, jobs = Store(), Jobs()
    settle(store, jobs, store.read("r"), seen(JOB, both(terminated(0), other, phase)))
    assert store.outcome == ("FINISHED", None) and jobs.deleted == [("j", "u")]


def ended_at(after_s, code, message=None):
    state = terminated(code, message=message)
    return {"terminated": {**state["terminated"], "finishedAt": at(after_s)}}


@pytest.mark.parametrize(("job", "state"), [
    # no word of the runner: the Job decides whether another pod follows
    (RETRIES, ended_at(60, 137)),
    (RETRIES, ended_at(60, 3, told("SCHEDULED", 3, None))),  # the runner expects another pod
    # stopped alone: the Job fails once the pod is gone
    (JOB, ended_at(60, 143, told("KILLED", 143, "Terminated"))),
])  # fmt: skip
def test_a_sidecar_does_not_keep_a_job_from_going_on_after_the_runs_container(job, state):
    store, jobs = Store(), Jobs()
    early, late = (
        seen(job, both(state, {"running": {}}, "Running"), NOW_S + after_s) for after_s in (1, 11)
    )
    assert foresee(early).look_again_s == pytest.approx(9) and not foresee(early).release_pod
    assert not settle(store, jobs, store.read("r"), early).ended and jobs.released == []
    settle(store, jobs, store.read("r"), late)
    assert (jobs.released, jobs.deleted, store.outcome) == (
        [("j-x", "p", False)],
        [],
        ("RUNNING", None),
    )


def test_a_pod_that_was_released_is_released_by_force_only_when_its_node_is_lost():
    leaving = both(ended_at(60, 137), {"running": {}}, "Running", deletionTimestamp=at(90))
    early, late = (foresee(seen(RETRIES, leaving, NOW_S - 60 + after_s)) for after_s in (100, 121))
    assert not early.release_pod and early.look_again_s == pytest.approx(20)
    settle(
        store := Store(), jobs := Jobs(), store.read("r"), seen(RETRIES, leaving, NOW_S - 60 + 121)
    )
    assert late.release_pod and jobs.released == [("j-x", "p", True)]


CRASHED = {"terminated": {"exitCode": 7, "reason": "Error"}}


def crashing(state=None, **status):
    """A pod with a native sidecar that has crashed and waits for its next start, if `state` is not
    another one.
    """
    statuses = [
        {"name": "proxy", "started": False, "state": state or {}, "lastState": CRASHED, **status}
    ]
    found = waiting("PodInitializing", 600, initContainerStatuses=statuses)
    return {
        **found,
        "spec": {**found["spec"], "initContainers": [{"name": "proxy", "restartPolicy": "Always"}]},
    }


@pytest.mark.parametrize("state", [
    {"waiting": {"reason": "CrashLoopBackOff"}},
    {"waiting": {"reason": "RunContainerError"}},
    CRASHED,  # as Kubernetes 1.34 shows it between two starts
    {"running": {}},  # for the moment
])  # fmt: skip
def test_a_native_sidecar_that_crashes_again_and_again_is_told_and_ends_the_run_after_its_patience(
    state,
):
    found, path = crashing(state), "spec.initContainers{proxy}"
    events = [
        of_container(happened("Pulled", 650), path),
        of_container(happened("BackOff", 700), path),
    ]
    young, old = (
        replace(seen(JOB, found, NOW_S - 60 + 700 + after_s), events=events) for after_s in (1, 301)
    )
    assert diagnose.waiting_for(found, JOB, events) == (
        "waiting: the init container 'proxy' failed with exit code 7"
    )
    assert not foresee(young).ended and foresee(young).look_again_s == pytest.approx(299)
    store, jobs = Store(), Jobs()
    settle(store, jobs, store.read("r"), old)
    assert store.outcome == ("FAILED", "InitContainerFailed") and jobs.deleted == [("j", "u")]
    assert store.tags[TAG_MESSAGE] == (
        "The init container 'proxy' failed with exit code 7. Correct it in the target's "
        "'pod_template'."
    )


@pytest.mark.parametrize("status", [
    {"started": True, "state": {"running": {}}},  # it has recovered
    # no sidecar: it has done its work
    {"name": "prepare", "state": {"terminated": {"exitCode": 0}}, "lastState": {}},
    {"state": {"running": {}}, "lastState": {}},
    {"state": {"waiting": {"reason": "PodInitializing"}}, "lastState": {}},
])  # fmt: skip
def test_an_init_container_that_goes_its_way_is_no_trouble(status):
    assert diagnose.cannot_start(crashing(**status), JOB, []) is None


def test_an_init_container_that_crashed_without_a_code_is_told_too():
    assert (
        diagnose.waiting_for(crashing({"terminated": {"reason": "Unknown"}}), JOB, [])
        == "waiting: the init container 'proxy' failed: Unknown"
    )


def mount(first_s, volume="own", last_s=None, reason="FailedMount"):
    return {"reason": reason, "message": f'MountVolume.SetUp failed for volume "{volume}"', "firstTimestamp": at(first_s),
            "lastTimestamp": at(last_s or first_s)}  # fmt: skip


UNMOUNTED = (
    "Unable to attach or mount volumes: unmounted volumes=[own]: timed out waiting for the "
    "condition"
)


@pytest.mark.parametrize(("events", "began_s"), [
    ([mount(610, "other"), mount(900)], 900),  # another volume
    # mounted in between; the API counts the event of before
    ([mount(610, last_s=900), happened("Pulled", 880)], 880),
    ([mount(610, last_s=900), mount(880, reason="SuccessfulAttachVolume")], 880),
    ([mount(610, last_s=900), mount(880, "other", reason="SuccessfulAttachVolume")], 610),
    ([mount(610, last_s=900), happened("Scheduled", 600)], 610),  # not in the order of time
    # the kubelet's summary of the same trouble
    ([mount(610), {**mount(730), "message": UNMOUNTED}], 610),
])  # fmt: skip
def test_the_patience_with_a_volume_counts_from_the_beginning_of_its_own_trouble(events, began_s):
    found = waiting("ContainerCreating", 600)
    young, old = (
        replace(seen(JOB, found, NOW_S - 60 + began_s + after_s), events=events)
        for after_s in (299, 301)
    )
    assert not foresee(young).ended
    assert foresee(old).ended and foresee(old).end.cause == "VolumeError"


def test_a_volume_that_was_mounted_since_is_no_trouble_in_whatever_order_events_come():
    events = [happened("Pulling", 700), mount(610)]
    assert diagnose.cannot_start(waiting("ContainerCreating", 600), JOB, events) is None


TROUBLES = {
    "CancelledByMark": (JOB, pod("Running"), (), {"status": "KILLED"}),
    "ImagePullError": (JOB, waiting("ErrImagePull", 0), (), {}),
    "InvalidImageName": (JOB, waiting("InvalidImageName", 0), (), {}),
    "CreateContainerConfigError": (JOB, waiting("CreateContainerError", 0), (), {}),
    "InitContainerFailed": (JOB, crashing(), (), {}),
    "VolumeError": (JOB, waiting("ContainerCreating", 0), [mount(1)], {}),
    "AdmissionDenied": (JOB, None, [happened("FailedCreate", 1)], {}),
    "NodeLost": (JOB, metadata(pod("Running"), deletionTimestamp=at(1)), (), {}),
    "a sidecar": (JOB, beside(terminated(3)), (), {}),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_settler_that_dies_before_it_deletes_the_job_leaves_that_to_the_next(name):
    job, found, events, more = TROUBLES[name]
    store, look = Store(**more), replace(seen(job, found, NOW_S + 5000), events=events)
    with pytest.raises(ClusterUnavailable):
        settle(store, Jobs(ClusterUnavailable("gone")), store.read("r"), look)
    assert has_ended(store.read("r"))
    settle(store, jobs := Jobs(), store.read("r"), look)
    assert jobs.deleted == [("j", "u")]


class Away(MemoryNamespace):
    def list_events(self, kind, name):
        raise ClusterUnavailable("away")


def test_a_look_without_its_events_is_no_look():
    """Without events a pod that was preempted and is gone would have failed of an unknown cause."""
    namespace = Away()
    namespace.add(objects.failed(objects.job("j", "r")))
    with pytest.raises(ClusterUnavailable):
        look_for(namespace, "r", Claim("j", "uid-of-j", "uid-of-n"))
