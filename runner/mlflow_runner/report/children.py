"""Runs that a script began below its own run and left RUNNING: they end with it, as nothing else will tell their end."""

from typing import List

from mlflow_runner.ending import end_tags
from mlflow_runner.outcome import Outcome
from mlflow_runner.submission import TAG_JOB, TAG_TARGET
from mlflow_runner.tracking import RunInfo

SEARCHES = 20
CHILDREN = 200
"""Of one run; at most so many searches are made for children, theirs included."""


def end_children(run, parent: RunInfo, outcome: Outcome, in_pod: bool) -> None:
    """End the children of a run that ended FAILED or KILLED, with its status and cause. Raises Unavailable or Refused.

    Not those with a Job of their own, and not those that have a runner of their own on this machine (`in_pod`: it died with the pod).
    """
    parents = [parent.run_id]
    for _ in range(SEARCHES):
        if not parents:
            return
        parent_id = parents.pop(0)
        message = f"Its parent run {parent_id} ended: {outcome.message or outcome.status}"
        for child in _running_children(run, parent.experiment_id, parent_id):
            if TAG_JOB in child.tags or (TAG_TARGET in child.tags and not in_pod):
                continue
            other = run.other(child.run_id)
            other.log(end_tags(outcome.status, outcome.cause, message, None), {})
            other.set_status(outcome.status, ended=True)
            parents.append(child.run_id)


def _running_children(run, experiment_id: str, parent_id: str) -> List[RunInfo]:
    wanted = f"attributes.status = 'RUNNING' AND tags.`mlflow.parentRunId` = '{parent_id}'"
    return run.search(experiment_id, wanted, CHILDREN)
