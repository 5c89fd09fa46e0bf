"""Bring an MLflow run in line with what its Job shows. Safe to call at any time, by anybody, twice."""

from collections.abc import Mapping
from typing import Any

from mlflow_backend import tracking
from mlflow_backend.cluster.diagnose import Diagnosis, ended
from mlflow_runner.causes import Cause
from mlflow_runner.submission import END_TAGS, TAG_CAUSE

TERMINAL = ("FINISHED", "FAILED", "KILLED")


def has_ended(run: Any) -> bool:
    """Whether an mlflow Run has its final status, told by the runner or a settler and not by the user's script alone.

    A pod that was stopped from outside is not final: its Job may go on with another one.
    """
    told = any(tag in run.data.tags for tag in END_TAGS)
    return run.info.status in TERMINAL and told and run.data.tags.get(TAG_CAUSE) != Cause.TERMINATED


def settle(run: Any, job: Mapping[str, Any] | None, pod: Mapping[str, Any] | None) -> bool:
    """Write the end that Job and pod show, unless the run has its end already; False if it may still run."""
    if has_ended(run):
        return True
    diagnosis = ended(job, pod)
    if diagnosis is None:
        return False
    stopped = run.info.status in TERMINAL and TAG_CAUSE in run.data.tags
    if not (stopped and diagnosis.cause in (Cause.TERMINATED, Cause.UNKNOWN)):  # the runner's words say more
        write(run, diagnosis)
    return True


def write(run: Any, diagnosis: Diagnosis) -> None:
    """Write `diagnosis` as the run's end."""
    tracking.end(run.info.run_id, diagnosis.status, diagnosis.cause, diagnosis.message, diagnosis.exit_code)
