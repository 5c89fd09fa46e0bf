"""Nested runs that a script started and left unfinished: they end with their parent, as no other
process can end them.
"""

from typing import TYPE_CHECKING, Callable, List, Optional, Tuple

from mlflow_runner.contract.answers import Refused, RunInfo
from mlflow_runner.contract.ending import end_tags, ends_with_parent
from mlflow_runner.contract.outcome import Outcome
from mlflow_runner.contract.tags import TAG_PARENT

if TYPE_CHECKING:
    from mlflow_runner.tracking import RunClient

MAX_CHILDREN = 10_000
"""At most so many end with one run, all levels together."""
UNFINISHED = ("RUNNING", "SCHEDULED")


def end_children(
    run: "RunClient",
    parent: RunInfo,
    outcome: Outcome,
    pod: Optional[str],
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """End the unfinished runs below a run that ended FAILED or KILLED, with its status and cause.

    `pod` is the name of the pod that the run's command was in, if any. Each run ends after all runs
    below it, so that a retry finds the rest. A run that the server refuses to change (deleted, or
    of another user) is reported with `say` and left. Raises Unavailable or Refused.
    """
    status = str(outcome.status)
    for child, parent_id in reversed(_list_below(run, parent, pod)):
        message = f"Its parent run {parent_id} ended: {outcome.message or status}"
        child_run = run.other(child.run_id)
        try:
            child_run.log(end_tags(status, outcome.cause, message, None), {})
            child_run.set_status(status, ended=True)
        except Refused as error:
            say(f"could not end nested run {child.run_id}: {error}")


def _list_below(run: "RunClient", root: RunInfo, pod: Optional[str]) -> List[Tuple[RunInfo, str]]:
    """The runs that end with `root`, each with its parent's id and before all runs below it.

    All are read before the first one ends, which changes the pages of a search.
    """
    below: List[Tuple[RunInfo, str]] = []
    seen, parents = {root.run_id}, [root.run_id]
    for parent_id in parents:
        for status in UNFINISHED:
            for child in run.search(
                root.experiment_id,
                f"attributes.status = '{status}' AND tags.`{TAG_PARENT}` = '{parent_id}'",
            ):
                if (
                    len(below) < MAX_CHILDREN
                    and child.run_id not in seen
                    and ends_with_parent(child.tags, pod)
                ):
                    seen.add(child.run_id)
                    below.append((child, parent_id))
                    parents.append(child.run_id)
    return below
