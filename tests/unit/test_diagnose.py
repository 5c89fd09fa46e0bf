"""Why a run ended or cannot start: what the cluster shows in, one cause out."""

import json

import pytest

from mlflow_backend.places.kubernetes.diagnose import cannot_start, ended, not_started, waiting_for
from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_runner.contract.causes import Cause

JOB = {"status": {}}


def job_failed(reason, message="m"):
    return {
        "status": {
            "conditions": [
                {"type": "Failed", "status": "True", "reason": reason, "message": message}
            ]
        }
    }


def pod(phase="Failed", state=None, conditions=(), **status):
    statuses = [{"name": "run", "state": state}] if state else []
    return {
        "spec": {"containers": [{"name": "run", "image": "runner:1"}]},
        "status": {
            "phase": phase,
            "containerStatuses": statuses,
            "conditions": list(conditions),
            **status,
        },
    }


def terminated(code, reason="Error", message=None):
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def told(status, code, cause):
    return json.dumps(
        {"status": status, "exit_code": code, "cause": cause, "message": "m", "reported": False}
    )


STOPPED = pod(state=terminated(143, message=told("KILLED", 143, "Terminated")))
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}


def disrupted(reason):
    return {**DISRUPTED, "reason": reason, "message": "m"}


def event(reason, message="m"):
    return {"reason": reason, "message": message}


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
        (job_failed("BackoffLimitExceeded"), STOPPED, "KILLED", "Deleted", 143),
        (job_failed("BackoffLimitExceeded"), pod(state=terminated(137), conditions=[DISRUPTED]), "FAILED", "Killed", 137),
        (job_failed("x"), pod(conditions=[disrupted("PreemptionByScheduler")]), "FAILED", "Preempted", None),
        (job_failed("x"), pod(conditions=[disrupted("DeletionByTaintManager")]), "FAILED", "NodeLost", None),
        (job_failed("x"), pod(reason="NodeLost"), "FAILED", "NodeLost", None),
        (job_failed("x"), pod(conditions=[disrupted("EvictionByEvictionAPI")]), "FAILED", "Evicted", None),
        (job_failed("x"), pod(reason="Terminated", message="Pod was terminated in response to "
                                                           "imminent node shutdown."),
         "FAILED", "NodeShutdown", None),
        (job_failed("x"), pod(state=terminated(143, message=told("KILLED", 143, "Terminated")),
                              conditions=[disrupted("EvictionByEvictionAPI")]), "FAILED", "Evicted", 143),
        (job_failed("x"), pod(state=terminated(3, message=told("FAILED", 3, "ExitCode")), conditions=[disrupted("EvictionByEvictionAPI")]),
         "FAILED", "ExitCode", 3),
    ],
)  # fmt: skip
def test_an_end_has_its_status_and_cause(job, found, status, cause, code):
    diagnosis = ended(job, found)
    assert (diagnosis.status, diagnosis.cause, diagnosis.exit_code) == (status, cause, code)
    assert diagnosis.message or status == "FINISHED"


@pytest.mark.parametrize(
    ("message", "events", "cause", "code"),
    [
        (
            "Container run for pod a/b failed with exit code 3 matching FailJob rule at index 1",
            [],
            "ExitCode",
            3,
        ),
        (
            "Container run for pod a/b failed with exit code 137 matching FailJob rule at index 1",
            [],
            "Killed",
            137,
        ),
        (
            "Pod a/b has condition DisruptionTarget matching FailJob rule at index 0",
            [],
            "Evicted",
            None,
        ),
        (
            "Pod a/b has condition DisruptionTarget matching FailJob rule at index 0",
            [event("Preempted"), event("Killing")],
            "Preempted",
            None,
        ),
        (
            "Pod a/b has condition DisruptionTarget matching FailJob rule at index 0",
            [event("TaintManagerEviction")],
            "NodeLost",
            None,
        ),
    ],
)
def test_of_a_pod_that_is_gone_the_job_and_events_still_tell(message, events, cause, code):
    diagnosis = ended(job_failed("PodFailurePolicy", message), None, events)
    assert (diagnosis.status, diagnosis.cause, diagnosis.exit_code) == ("FAILED", cause, code)


@pytest.mark.parametrize(
    "found",
    [None, pod("Pending"), pod("Running", {"running": {}}), pod(conditions=[DISRUPTED]), STOPPED],
)
def test_a_run_whose_job_goes_on_has_not_ended(found):
    assert ended(JOB, found) is None


def test_a_job_that_is_to_fail_is_not_settled_before_its_pod_has_ended():
    target = {
        "status": {
            "conditions": [
                {"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}
            ]
        }
    }
    assert ended(target, pod("Running")) is None
    assert ended(target, STOPPED).cause == ended(target, None).cause == "DeadlineExceeded"


def test_a_deleted_job_whose_pod_still_ends_is_not_settled_before_it():
    assert ended(None, pod("Running")) is None


def waiting(reason):
    return pod("Pending", {"waiting": {"reason": reason, "message": "no such image"}})


def unschedulable(message, **requests):
    found = pod(
        "Pending",
        conditions=[
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
            }
        ],
    )
    found["spec"]["containers"][0]["resources"] = {"requests": requests}
    return found


@pytest.mark.parametrize(
    ("found", "events", "cause", "patience_s", "words"),
    [
        (waiting("InvalidImageName"), [], "InvalidImageName", 0, "no such image"),
        (waiting("ImagePullBackOff"), [], "ImagePullError", 120, "image_pull_secrets"),
        (waiting("ErrImageNeverPull"), [], "ImagePullError", 0, "image_pull_policy"),
        (waiting("CreateContainerConfigError"), [], "CreateContainerConfigError", 30, "'secret'"),
        (unschedulable("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", **{"nvidia.com/gpu": "4"}), [], "Unschedulable", None,
         "asks for nvidia.com/gpu 4"),
        (unschedulable("0/2 nodes are available: 2 node(s) had untolerated taint {a: b}."), [], "Unschedulable", None, "'tolerations'"),
        (None, [event("FailedCreate", 'pods "x" is forbidden: exceeded quota: team, requested: '
                                      'cpu=9')], "QuotaExceeded", None, "exceeded quota: team"),
        (None, [event("FailedCreate", 'pods "x" is forbidden: violates PodSecurity '
                                      '"restricted:latest": host namespaces')], "AdmissionDenied", 30,
         "host namespaces"),
        (None, [event("FailedCreate", "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with "
                                      "binding 'b' denied request: no")], "AdmissionDenied",
         30, "An admission policy refuses the pod"),
        (None, [event("FailedCreate", 'admission webhook "w.example" denied the request: no')], "AdmissionDenied", 30, "w.example"),
        (pod("Pending"), [event("FailedMount", 'secret "own" not found')], "VolumeError", 300, 'secret "own" not found'),
    ],
)  # fmt: skip
def test_what_keeps_a_run_from_starting_has_a_cause_a_patience_and_a_hint(
    found, events, cause, patience_s, words
):
    trouble = cannot_start(found, JOB, events)
    assert (trouble.diagnosis.cause, trouble.patience_s) == (cause, patience_s)
    assert (
        words in trouble.diagnosis.message
        and trouble.diagnosis.hint
        and trouble.diagnosis.status == "FAILED"
    )
    assert waiting_for(found, JOB, events).startswith("waiting: ")


@pytest.mark.parametrize(
    ("found", "events"),
    [(pod("Pending", {"waiting": {"reason": "ContainerCreating"}}), []), (pod("Pending"), []), (None, []), (pod("Running"), [event("FailedMount")]),
     (pod("Pending"), [event("FailedMount"), event("Pulling")])],
)  # fmt: skip
def test_a_run_that_is_only_on_its_way_is_in_no_trouble(found, events):
    assert cannot_start(found, JOB, events) is None


def test_a_run_that_takes_longer_than_its_start_timeout_says_where_it_hung():
    on_node = pod("Pending")
    on_node["spec"]["nodeName"] = "n"
    assert (
        not_started(on_node, JOB, 60).cause == "ImagePullError"
        and "60 s" in not_started(on_node, JOB, 60).message
    )
    assert not_started(None, {"spec": {"suspend": True}}, 60).cause == "Unschedulable"
    assert "queue" in not_started(None, {"spec": {"suspend": True}}, 60).message


def test_a_message_is_one_line_with_what_the_cluster_says_and_what_to_do():
    found = Diagnosis(
        "FAILED",
        Cause.UNSCHEDULABLE,
        "No node takes the pod",
        "0/1 nodes\n  are free.",
        "ask for less",
    )
    assert found.message == "No node takes the pod: 0/1 nodes are free. Ask for less."
    assert Diagnosis("KILLED", Cause.DELETED, "The Job was deleted").message == (
        "The Job was deleted."
    )


@pytest.mark.parametrize(
    ("found", "job", "events", "words"),
    [
        (None, {"spec": {"suspend": True}}, [], "queue"),
        (
            None,
            JOB,
            [{"reason": "FailedCreate", "message": "exceeded quota: team"}],
            "exceeded quota: team",
        ),
        (
            pod(
                "Pending",
                conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}],
            ),
            JOB,
            [],
            "0/3 nodes",
        ),
        (
            pod("Pending", {"waiting": {"reason": "ContainerCreating"}}),
            JOB,
            [{"reason": "Pulling"}],
            "pulling image runner:1",
        ),
        (
            pod("Pending", {"waiting": {"reason": "ContainerCreating"}}),
            JOB,
            [{"reason": "Pulling"}, {"reason": "Pulled"}],
            "starting",
        ),
        (
            pod("Pending", {"waiting": {"reason": "ErrImagePull", "message": "not found"}}),
            JOB,
            [],
            "not found",
        ),
    ],
)
def test_a_run_that_waits_says_what_for(found, job, events, words):
    assert words in waiting_for(found, job, events)
