"""Why a run ended or cannot start: what the cluster shows in, one cause out."""

import json

import pytest

from mlflow_backend.cluster.diagnose import cannot_start, ended, waiting_for

JOB = {"status": {}}


def job_failed(reason):
    return {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason, "message": "m"}]}}


def pod(phase="Failed", state=None, conditions=(), **status):
    statuses = [{"name": "run", "state": state}] if state else []
    return {
        "spec": {"containers": [{"image": "runner:1"}]},
        "status": {"phase": phase, "containerStatuses": statuses, "conditions": list(conditions), **status},
    }


def terminated(code, reason="Error", message=None):
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def told(status, code, cause):
    return json.dumps({"status": status, "exit_code": code, "cause": cause, "message": "m", "reported": False})


STOPPED = pod(state=terminated(143, message=told("KILLED", 143, "Terminated")))
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}


@pytest.mark.parametrize(
    ("job", "found", "status", "cause", "code"),
    [
        (None, None, "KILLED", "Deleted", None),
        (None, pod(state=terminated(143, message=told("KILLED", 143, "Terminated"))), "KILLED", "Deleted", None),
        (JOB, pod("Succeeded", terminated(0, "Completed")), "FINISHED", None, 0),
        (JOB, pod("Succeeded", terminated(0, "Completed", told("FINISHED", 0, None))), "FINISHED", None, 0),
        (JOB, pod(state=terminated(3, message=told("FAILED", 3, "ExitCode"))), "FAILED", "ExitCode", 3),
        (JOB, pod(state=terminated(137, "OOMKilled")), "FAILED", "OOMKilled", 137),
        (JOB, pod(state=terminated(137)), "FAILED", "Killed", 137),
        (JOB, pod(state=terminated(128, "StartError", 'exec: "python3": not found')), "FAILED", "EnvironmentError", 128),
        (JOB, pod(state=terminated(1)), "FAILED", "ExitCode", 1),
        (JOB, pod(reason="Evicted", message="The node was low on memory."), "FAILED", "Evicted", None),
        (JOB, pod(), "FAILED", "Unknown", None),
        (job_failed("DeadlineExceeded"), None, "FAILED", "DeadlineExceeded", None),
        (job_failed("DeadlineExceeded"), pod(state=terminated(143, message=told("KILLED", 143, "Terminated"))),
         "FAILED", "DeadlineExceeded", 143),
        (job_failed("BackoffLimitExceeded"), None, "FAILED", "Unknown", None),
        (job_failed("BackoffLimitExceeded"), STOPPED, "KILLED", "Terminated", 143),
        (job_failed("BackoffLimitExceeded"), pod(state=terminated(137), conditions=[DISRUPTED]), "FAILED", "Killed", 137),
    ],
)  # fmt: skip
def test_an_end_has_its_status_and_cause(job, found, status, cause, code):
    diagnosis = ended(job, found)
    assert (diagnosis.status, diagnosis.cause, diagnosis.exit_code) == (status, cause, code)
    assert diagnosis.message or status == "FINISHED"


@pytest.mark.parametrize("found", [None, pod("Pending"), pod("Running", {"running": {}}), pod(conditions=[DISRUPTED]), STOPPED])
def test_a_run_whose_job_goes_on_has_not_ended(found):
    assert ended(JOB, found) is None


def test_a_job_that_is_to_fail_is_not_settled_before_its_pod_has_ended():
    target = {"status": {"conditions": [{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}]}}
    assert ended(target, pod("Running")) is None
    assert ended(target, STOPPED).cause == ended(target, None).cause == "DeadlineExceeded"


def test_a_deleted_job_whose_pod_still_ends_is_not_settled_before_it():
    assert ended(None, pod("Running")) is None


@pytest.mark.parametrize(
    ("reason", "cause", "grace_s"),
    [("InvalidImageName", "InvalidImageName", 0), ("ImagePullBackOff", "ImagePullError", 120), ("ErrImageNeverPull", "ImagePullError", 0)],
)
def test_a_container_that_cannot_start_says_why_and_how_long_to_be_patient(reason, cause, grace_s):
    diagnosis, patience_s = cannot_start(pod("Pending", {"waiting": {"reason": reason, "message": "no such image"}}))
    assert (diagnosis.cause, patience_s) == (cause, grace_s)
    assert "no such image" in diagnosis.message


def test_a_container_that_is_only_being_made_is_no_trouble():
    assert cannot_start(pod("Pending", {"waiting": {"reason": "ContainerCreating"}})) is None
    assert cannot_start(pod("Pending")) is None


@pytest.mark.parametrize(
    ("found", "job", "events", "words"),
    [
        (None, {"spec": {"suspend": True}}, [], "queue"),
        (None, JOB, [{"reason": "FailedCreate", "message": "exceeded quota: team"}], "exceeded quota: team"),
        (pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]), JOB, [], "0/3 nodes"),
        (pod("Pending", {"waiting": {"reason": "ContainerCreating"}}), JOB, [{"reason": "Pulling"}], "pulling image runner:1"),
        (pod("Pending", {"waiting": {"reason": "ContainerCreating"}}), JOB, [{"reason": "Pulling"}, {"reason": "Pulled"}], "starting"),
        (pod("Pending", {"waiting": {"reason": "ErrImagePull", "message": "not found"}}), JOB, [], "not found"),
    ],
)
def test_a_run_that_waits_says_what_for(found, job, events, words):
    assert words in waiting_for(found, job, events)
