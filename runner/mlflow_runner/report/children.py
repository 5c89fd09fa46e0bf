"""Runs that a script began below its own run and left unfinished: they end with it, as nothing else
will tell their end.
"""

from typing import Callable, List, Optional, Tuple

from mlflow_runner.contract.answers import Refused, RunInfo
from mlflow_runner.contract.ending import end_tags, ends_with_parent
from mlflow_runner.contract.outcome import Outcome
from mlflow_runner.contract.tags import TAG_PARENT

CHILDREN = 10_000
"""So many end with one run, theirs included."""
UNFINISHED = ("RUNNING", "SCHEDULED")


def end_children(
    run,
    parent: RunInfo,
    outcome: Outcome,
    pod: Optional[str],
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """End what a run that ended FAILED or KILLED left below it, with its status and cause. Raises
    Unavailable or Refused.

    `pod` is where the run's command was, if in one. Each ends after all below it, so that the next
    try finds what is left. One that is refused, as it was deleted or belongs to another user, is
    said and left.
    """
    for child, parent_id in reversed(_below(run, parent, pod)):
        message = f"Its parent run {parent_id} ended: {outcome.message or outcome.status}"
        other = run.other(child.run_id)
        try:
            other.log(end_tags(outcome.status, outcome.cause, message, None), {})
            other.set_status(outcome.status, ended=True)
        except Refused as error:
            say(f"run {child.run_id}, which this run began, cannot be ended: {error}")


def _below(run, root: RunInfo, pod: Optional[str]) -> List[Tuple[RunInfo, str]]:
    """The runs that end with `root`, each with its parent's id and before all below it; known
    before the first ends, which moves pages.
    """
    known, found, parents = {root.run_id}, [], [root.run_id]
    for parent_id in parents:
        for status in UNFINISHED:
            for child in run.search(
                root.experiment_id,
                f"attributes.status = '{status}' AND tags.`{TAG_PARENT}` = '{parent_id}'",
            ):
                if (
                    len(found) < CHILDREN
                    and child.run_id not in known
                    and ends_with_parent(child.tags, pod)
                ):
                    known.add(child.run_id)
                    found.append((child, parent_id))
                    parents.append(child.run_id)
    return found
