"""The nested runs that a run which failed or was killed leaves unfinished: they end with it."""

import logging
from collections.abc import Iterator
from itertools import islice

from mlflow_backend.errors import TrackingError, TrackingUnavailable
from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_backend.supervision.record import RunRecord, Runs
from mlflow_runner.contract.answers import Refused
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import ends_with_parent
from mlflow_runner.contract.tags import TAG_CAUSE, TAG_MESSAGE, TAG_POD

log = logging.getLogger("mlflow_compute")

CHILDREN = 10_000
"""So many nested runs end with one run, theirs included."""


def end_children(runs: Runs, parent: RunRecord, end: Diagnosis | None) -> int:
    """End the nested runs that a run which ended FAILED or KILLED left unfinished, as nothing else
    tells their end; how many there were.

    `end` is the parent's where it is still to be written; else its tags say how it ended.
    """
    status = end.status if end else parent.status
    if status not in ("FAILED", "KILLED") or parent.is_deleted:
        return 0
    cause = end.cause if end else _cause_of(parent)
    told = end.message if end else parent.tags.get(TAG_MESSAGE, "")
    count = 0
    for child, parent_id in _below(runs, parent):
        if count == CHILDREN:
            log.warning(
                "run %s: more than %d of its nested runs have not ended: settle it again to end "
                "the others",
                parent.run_id,
                CHILDREN,
            )
            break
        count += 1
        try:
            runs.end(
                child.run_id, Diagnosis(status, cause, f"Its parent run {parent_id} ended", told)
            )
        except TrackingUnavailable:
            raise
        except (TrackingError, Refused) as error:
            # deleted meanwhile, or another user's: no reason to leave the parent without its end
            log.warning(
                "run %s: its nested run %s could not be ended: %s",
                parent.run_id,
                child.run_id,
                error,
            )
    return count


def _cause_of(run: RunRecord) -> Cause | None:
    """The cause in the run's tags, which everyone may write; None for a word that is not one."""
    word = run.tags.get(TAG_CAUSE)
    return Cause(word) if word in [*Cause] else None


def _below(runs: Runs, root: RunRecord) -> Iterator[tuple[RunRecord, str]]:
    """The runs that end with `root`, each with its parent's id and after all below it: an
    unfinished one is found by the next settler.

    The children of a run are all known before the first is given, as each that ends moves the pages
    of the search.
    """
    known, stack = {root.run_id}, [(root, "", False)]
    while stack:
        run, parent_id, is_complete = stack.pop()
        if is_complete:
            yield run, parent_id
            continue
        if run is not root:
            stack.append((run, parent_id, True))
        children = islice(runs.children(run), CHILDREN + 1)
        found = {
            child.run_id: child
            for child in children
            if child.run_id not in known and ends_with_parent(child.tags, root.tags.get(TAG_POD))
        }
        known.update(found)
        stack += [(child, run.run_id, False) for child in reversed(found.values())]
