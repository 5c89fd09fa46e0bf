"""What a waiting client takes for its run, and what ends the wait."""

import queue

import pytest

from mlflow_backend.cluster.observe import Change
from mlflow_backend.cluster.ownership import Claim
from mlflow_backend.cluster.wait import SubmittedJob, Waiting
from mlflow_backend.progress import Progress
from tests.bed.objects import MemoryNamespace, job, pod


def waiting(*changes):
    waits = queue.Queue()
    for change in changes:
        waits.put(change)
    claim = Claim("j", "uid-of-j", "uid-of-n")
    return Waiting(SubmittedJob(MemoryNamespace(), None, claim, "r", "m4rk", False, 30.0, None, Progress()), waits)


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
