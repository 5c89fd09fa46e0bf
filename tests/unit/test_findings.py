"""The findings of checks: in order, whatever raises, and an error stops a submit."""

import threading

import pytest

from mlflow_backend.errors import ClusterError, ComputeError, TrackingError
from mlflow_backend.plan.findings import Finding, Rejected, refuse, run

WARNING = Finding("warning", "MissingSetting", "no deadline", "set 'deadline'")


def raising(error):
    def check():
        raise error

    return check


def test_every_check_runs_and_what_one_raises_is_a_finding_in_its_place():
    denied = ClusterError("quota", code="ClusterRefused", hint="ask for less")
    away = TrackingError("no answer", code="TrackingUnavailable")
    found = run([lambda: [WARNING], raising(denied), raising(away), list])
    assert found == [
        WARNING,
        Finding("error", "ClusterRefused", "quota", "ask for less"),
        Finding("error", "TrackingUnavailable", "no answer"),
    ]
    assert str(found[1]) == "error: quota: ask for less"


def test_checks_run_at_the_same_time():
    both = threading.Barrier(2, timeout=10)

    def check():
        both.wait()
        return [WARNING]

    assert run([check, check]) == [WARNING, WARNING]


def test_a_defect_is_no_finding():
    with pytest.raises(ZeroDivisionError):
        run([lambda: 1 // 0])


def test_an_error_stops_a_submit_and_a_warning_does_not():
    refuse([WARNING])
    errors = [Finding("error", "ClusterRefused", "quota"), Finding("error", "NotFound", "claim")]
    with pytest.raises(Rejected) as raised:
        refuse([WARNING, *errors])
    assert isinstance(raised.value, ComputeError)
    assert (raised.value.code, str(raised.value)) == ("ClusterRefused", "quota")
    assert raised.value.findings == errors
