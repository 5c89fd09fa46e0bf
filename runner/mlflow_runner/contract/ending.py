"""What becomes of an MLflow run at its pod's end: from what MLflow says of it and what the runner
knows. Pure.
"""

from typing import Dict, Mapping, NamedTuple, Optional, Tuple

from mlflow_runner.contract.answers import RunInfo
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.state import State
from mlflow_runner.contract.tags import (
    END_TAGS,
    TAG_ATTEMPT,
    TAG_CAUSE,
    TAG_EXIT_CODE,
    TAG_INDEX,
    TAG_JOB,
    TAG_MESSAGE,
    TAG_NODE,
    TAG_POD,
    TAG_STATUS,
    TAG_TARGET,
)
from mlflow_runner.contract.topology import Member, number

TERMINAL = ("FINISHED", "FAILED", "KILLED")
MESSAGE_CHARS = 5000
"""MLflow's limit for the value of a tag."""


class Ending(NamedTuple):
    """The tags to set, those to remove after that, and the status to set last: readers believe an
    end whose tag agrees with its status.
    """

    status: str
    tags: Dict[str, str]
    remove: Tuple[str, ...] = ()


def end_tags(
    status: str, cause: Optional[str], message: Optional[str], exit_code: Optional[int]
) -> Dict[str, str]:
    """The tags of an end with this status; every writer writes them, in one call, before the
    status.
    """
    tags = {
        TAG_STATUS: status,
        TAG_CAUSE: cause and str(cause),
        TAG_MESSAGE: message and _storable(message)[:MESSAGE_CHARS],
    }
    tags[TAG_EXIT_CODE] = None if exit_code is None else str(exit_code)
    return {name: value for name, value in tags.items() if value}


def describe(
    status: str, exit_code: Optional[int], cause: Optional[str], message: Optional[str]
) -> str:
    """An end as one line for people."""
    code = "" if exit_code is None else f", exit code {exit_code}"
    return (
        f"{status}{code}"
        + (f", cause {cause}" if cause else "")
        + (f": {message}" if message else "")
    )


def is_told(status: str, tags: Mapping[str, str]) -> bool:
    """Whether a run with this status and these tags has its final end, written by the runner or a
    settler.

    The user's script may set a status too, but not the tag that repeats it. A reader between the
    two writes of an end sees them differ. A pod that was stopped from outside is not final: its Job
    may go on.
    """
    return (
        status in TERMINAL
        and tags.get(TAG_STATUS) == status
        and tags.get(TAG_CAUSE) != Cause.TERMINATED
    )


def speaks_for(found: RunInfo, state: State) -> bool:
    """Whether the pod of `state` tells the status of this run: a pod that another one has replaced
    does not (a node that was believed lost may still run it), nor one of another index.
    """
    tags = found.tags
    index, attempt = (
        number(tags.get(TAG_INDEX, ""), state.index),
        number(tags.get(TAG_ATTEMPT, ""), 1),
    )
    last, pod = Member(index, attempt), tags.get(TAG_POD)
    if not state.speaks or index != state.index or last.replaces(state.member):
        return False
    return last != state.member or None in (pod, state.pod) or pod == state.pod


def ending(found: RunInfo, state: State) -> Optional[Ending]:
    """How the run ends, or None when that is no longer this pod's to say.

    A cancel stands. What was written by a client or controller that saw the cluster stands when the
    runner was only stopped and does not know by whom; a command that ended by itself is known best
    here. A script that marks its run FAILED and exits with 0 has failed. Writing the same end again
    changes nothing.
    """
    if state.status is None or not speaks_for(found, state):
        return None
    told, by_hand = found.tags.get(TAG_CAUSE), is_by_hand(found.status, found.tags)
    if state.status == "FINISHED" and is_marked_failed(found.status, found.tags):
        return _own(state, "FAILED", Cause.MARKED_FAILED, marked_failed(state.exit_code))
    stopped = state.status == "KILLED"
    # written by an earlier try
    ours = told == state.cause and found.tags.get(TAG_STATUS) == "KILLED"
    marked = found.status == "KILLED" and (by_hand or ours)  # in MLflow's UI, or by the script
    # whatever the status: RUNNING may have been on its way at that moment
    cancelled = told == Cause.CANCELLED
    if cancelled or (found.status in TERMINAL and told not in (None, Cause.TERMINATED)):
        if cancelled or stopped or state.status not in TERMINAL:
            # a script that ends its own run while it is stopped must not hide that it was
            status = "KILLED" if told in (Cause.CANCELLED, Cause.DELETED) else found.status
            return Ending(status, end_tags(status, None, None, state.exit_code))
    elif marked and (
        state.status in ("FINISHED", "SCHEDULED") or (by_hand and state.cause == Cause.TERMINATED)
    ):
        # a Job must not go on with a further pod
        return _own(state, "KILLED", Cause.CANCELLED, "The run was marked KILLED in MLflow.")
    return _own(state, "KILLED" if marked else state.status, state.cause, state.message)


def is_by_hand(status: str, tags: Mapping[str, str]) -> bool:
    """Whether this is an end by a user or by the script itself: none of ours is in the tags, not
    even half of one.
    """
    return status in TERMINAL and TAG_CAUSE not in tags and tags.get(TAG_STATUS) not in TERMINAL


def is_marked_failed(status: str, tags: Mapping[str, str]) -> bool:
    """Whether the script marked the run FAILED: then it has failed, although its command exits with
    0. The same run once that is written is marked too.
    """
    return status == "FAILED" and (
        is_by_hand(status, tags) or tags.get(TAG_CAUSE) == Cause.MARKED_FAILED
    )


def marked_failed(exit_code: Optional[int]) -> str:
    """The message of such an end."""
    return f"The command exited with code {exit_code}, but the script marked the run FAILED."


def ends_with_parent(child: Mapping[str, str], pod: Optional[str]) -> bool:
    """Whether a nested run with these tags has neither a Job nor a runner of its own that could
    tell its end.

    A runner in the parent's `pod` has died with it: its tags name the pod, as the machine that it
    is on or as its own.
    """
    in_pod = pod is not None and pod in (child.get(TAG_NODE), child.get(TAG_POD))
    return TAG_JOB not in child and (TAG_TARGET not in child or in_pod)


def _own(state: State, status: str, cause: Optional[str], message: Optional[str]) -> Ending:
    tags = end_tags(status, cause, message, state.exit_code)
    return Ending(status, tags, tuple(tag for tag in END_TAGS if tag not in tags))


def _storable(text: str) -> str:
    """`text` as every database takes it: bytes that are no text, and NUL, make some answer 500 for
    ever.
    """
    return text.encode("utf-8", "replace").decode().replace("\0", "")
