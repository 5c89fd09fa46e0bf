"""Bring an MLflow run in line with what its Job shows. Safe to call at any time, by anybody, twice."""

from collections.abc import Mapping
from typing import Any

from mlflow_runner.submission import END_TAGS

from mlflow_backend import tracking
from mlflow_backend.cluster.diagnose import Diagnosis, ended

TERMINAL = ("FINISHED", "FAILED", "KILLED")


def has_ended(run: Any) -> bool:
    """Whether an mlflow Run has its final status, told by the runner or a settler and not by the user's script alone."""
    return run.info.status in TERMINAL and any(tag in run.data.tags for tag in END_TAGS)


def settle(run: Any, job: Mapping[str, Any] | None, pod: Mapping[str, Any] | None) -> str | None:
    """Write the end that Job and pod show, unless the run has its end already.

    Returns the run's final status, or None when it may still run.
    """
    if has_ended(run):
        return run.info.status
    diagnosis = ended(job, pod)
    if diagnosis is None:
        return None
    write(run, diagnosis)
    return diagnosis.status


def write(run: Any, diagnosis: Diagnosis) -> None:
    tracking.end(run.info.run_id, diagnosis.status, diagnosis.cause, diagnosis.message, diagnosis.exit_code)
