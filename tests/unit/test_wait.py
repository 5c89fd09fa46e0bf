"""What a waiting client takes for its run, and what ends the wait."""

import queue

import pytest

from mlflow_backend.errors import ClusterError
from mlflow_backend.places.kubernetes.client.observe import Change
from mlflow_backend.places.kubernetes.members import deciding
from mlflow_backend.places.kubernetes.ownership import Claim
from mlflow_backend.places.kubernetes.submitted_job import SubmittedJob
from mlflow_backend.places.kubernetes.wait import LOG_AGAIN_S, Waiting
from mlflow_backend.progress import Progress
from tests.bed.objects import MemoryNamespace, job, pod, stamp


def waiting(*changes, cluster=None, mark=""):
    waits = queue.Queue()
    for change in changes:
        waits.put(change)
    claim = Claim("j", "uid-of-j", "uid-of-n")
    return Waiting(
        SubmittedJob(
            cluster or MemoryNamespace(), None, claim, "r", mark, False, 30.0, None, Progress()
        ),
        waits,
    )


def test_a_pod_of_another_job_of_the_same_name_is_not_taken_for_the_runs():
    other = pod(job("j", "r", uid="other"), "Succeeded")
    wait = waiting()
    wait._take(Change("Pod", "j-x", other))
    assert wait._watched().pod is None
    wait._take(Change("Pod", "j-x", own := pod(job("j", "r"))))
    assert wait._watched().pod == own


def test_the_error_that_has_ended_the_watches_ends_the_wait():
    died = RuntimeError("the watch died")
    with pytest.raises(RuntimeError) as raised:
        waiting(Change("Error", "", died)).until_end()
    assert raised.value is died


def attempt(number, age_s):
    found = pod(job("j", "r"))
    names = {"name": f"j-{number}", "uid": f"p{number}", "creationTimestamp": stamp(age_s)}
    notes = {"batch.kubernetes.io/job-index-failure-count": str(number)}
    return {**found, "metadata": {**found["metadata"], **names, "annotations": notes}}


def test_the_pod_that_counts_is_the_same_as_for_all_who_look_at_the_run():
    """The latest attempt, whatever the pods' times of creation: they have whole seconds, and a
    node's clock may be set back.
    """
    first, second = attempt(0, age_s=0), attempt(1, age_s=5)
    for order in ((first, second), (second, first)):
        wait = waiting()
        for item in order:
            wait._take(Change("Pod", item["metadata"]["name"], item))
        assert wait._watched().pod is second is deciding((first, second))


def test_the_latest_state_of_a_pod_counts_and_its_end_outlives_it():
    wait, name = waiting(), "j-0"
    running = attempt(0, age_s=5)
    over = {**running, "status": {**running["status"], "phase": "Succeeded"}}
    for state in (running, over):
        wait._take(Change("Pod", name, state))
        assert wait._watched().pod is state
    wait._take(Change("Pod", name, None, over))
    assert wait._watched().pod is over
    wait._take(Change("Pod", name, None, running))
    assert wait._watched().pod is None


class Pauses:
    """Stands for the event of a changed pod: nothing waits, and the seconds that would have been
    waited are kept.
    """

    def __init__(self):
        self.taken = []

    def wait(self, seconds):
        self.taken.append(seconds)

    def clear(self):
        pass


class Logs(MemoryNamespace):
    """Gives one log after the other, each a list of lines or an error; the last one ends the
    follower.
    """

    def __init__(self, *logs):
        super().__init__()
        self.logs = list(logs)

    def follow_log(self, pod, since_s):
        log = self.logs.pop(0)
        if not self.logs:
            self.closing.set()
        if isinstance(log, Exception):
            raise log
        yield from log


FIRST, SECOND = b"2026-01-01T00:00:01Z a\n", b"2026-01-01T00:00:02Z b\n"


def test_a_log_that_only_repeats_its_last_line_is_asked_for_less_and_less_often():
    wait = waiting(cluster=Logs(*[[FIRST]] * 8, [FIRST, SECOND], [SECOND]))
    wait._pod_changed = Pauses()
    wait._follow_log("j-x")
    first_s, most_s = LOG_AGAIN_S
    assert wait._pod_changed.taken == [first_s, 1, 2, 4, 8, most_s, most_s, most_s, first_s, 1]


def test_a_log_that_is_not_shown_says_when_the_run_has_ended(capsys):
    end = b"2026-01-01T00:00:03Z [mlflow-compute] run r has ended m4rk\n"
    wait = waiting(cluster=Logs([FIRST, end]), mark="m4rk")
    wait._follow_log("j-x")
    assert wait._announced and wait._changes.get_nowait().kind == "Log"
    assert capsys.readouterr().out == ""


def test_the_log_of_a_pod_that_was_replaced_is_given_up_without_a_word(capsys):
    wait = waiting(cluster=Logs(ClusterError("pods j-0 not found"), []))
    wait._take(Change("Pod", "j-1", attempt(1, 0)))
    capsys.readouterr()
    wait._follow_log("j-0")
    assert capsys.readouterr().err == ""
