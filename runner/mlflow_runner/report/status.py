"""The status channel: RUNNING, the end and its tags. It alone decides whether the server accepts
the run.
"""

from typing import Callable, Dict, Optional

from mlflow_runner.contract.answers import Denied, Missing, Refused, RunInfo, Unavailable
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import TERMINAL, ending, is_told, speaks_for
from mlflow_runner.contract.outcome import TOLD, Outcome
from mlflow_runner.contract.state import State
from mlflow_runner.contract.tags import (
    END_TAGS,
    TAG_ATTEMPT,
    TAG_CAUSE,
    TAG_IMAGE,
    TAG_JOB_UID,
    TAG_MESSAGE,
    TAG_NODE,
    TAG_POD,
)
from mlflow_runner.report.progress import Progress


class Deleted(Exception):
    """The run was deleted in MLflow: its command is stopped, and nothing more can be told."""


class Status:
    """What MLflow knows of the run. `connect` gives the client for it.

    `found` is what MLflow had when it was last asked; `is_accepted` once the server has taken a
    change of the run.
    """

    def __init__(self, directory, connect: Callable[[], object]):
        self._progress = Progress(directory, "status")
        self._connect = connect
        self._run = None
        self.found: Optional[RunInfo] = None
        self._running_told: bool = self._progress.get("running", False)
        self._stale: Dict[str, str] = self._progress.get("stale", {})
        self.is_accepted: bool = self._progress.get("accepted", False)

    @property
    def run(self):
        """The client of the run. Raises NeedsMlflow."""
        if self._run is None:
            self._run = self._connect()
        return self._run

    def look(self, state: State) -> None:
        """See whether the run is still there; tell RUNNING once the command has been started."""
        found = self._get()
        if not state.started or state.status:
            return
        if not self._running_told:
            self._stale = self._change(lambda: tell_running(self.run, found, state))
            self._running_told = True
            self._progress.set(running=True, stale=self._stale)
        if self._stale:
            self._change(lambda: remove_earlier_end(self.run, found, self._stale))
            self._stale = {}
            self._progress.set(stale={})

    def tell_end(self, state: State, tags: Dict[str, str]) -> Outcome:
        """Write the run's end, `tags` with it."""
        found = self._get()
        return self._change(lambda: tell_end(self.run, found, state, tags))

    def tell_tags(self, tags: Dict[str, str]) -> None:
        self._change(lambda: self.run.log(tags, {}))

    def _get(self) -> RunInfo:
        found = self._do(self.run.get)
        if found.deleted:
            raise Deleted
        self.found = found
        return found

    def _change(self, function):
        result = self._do(function)
        self.is_accepted = True
        self._progress.set(accepted=True)
        return result

    def _do(self, function):
        """Only a login or a run that the server rejects from the beginning is refused; any other
        answer may change.
        """
        try:
            return function()
        except (Denied, Missing) as error:
            if not self.is_accepted:
                raise
            if isinstance(error, Missing) and error.is_mlflows:
                raise Deleted from None
            raise Unavailable(str(error)) from None
        except Refused as error:
            raise Unavailable(str(error)) from None


def tell_running(run, found: RunInfo, state: State) -> Dict[str, str]:
    """Write that the command runs; not for a run that a later pod has taken over, or that has
    ended, or was cancelled before it began.

    Returns the end tags of an earlier attempt. They go last (`remove_earlier_end`): a run KILLED
    without them is one that a user marked.
    """
    stopped_before = found.status == "KILLED" and found.tags.get(TAG_CAUSE) == Cause.TERMINATED
    if (
        not speaks_for(found, state)
        or is_told(found.status, found.tags)
        or (found.status == "KILLED" and not stopped_before)
    ):
        return {}
    run.log(place_tags(state), {})
    run.set_status("RUNNING", ended=False)
    return _end_tags_of(found)


def remove_earlier_end(run, found: RunInfo, stale: Dict[str, str]) -> None:
    """Remove the end tags of an earlier attempt, unless another process has written an end
    since.
    """
    left = _end_tags_of(found)
    if left.items() <= stale.items():
        run.remove_tags(list(left))


def tell_end(run, found: RunInfo, state: State, tags: Dict[str, str]) -> Outcome:
    """Write the end of `state`: all tags in one call, then what is stale, and the status last. A
    reader believes it only then.

    SCHEDULED is no end: the status comes before what is stale goes, as in `tell_running`.
    """
    end = ending(found, state)
    if end is None:
        return Outcome(
            TOLD,
            state.status,
            state.cause,
            "Another pod tells the end of this run.",
        )
    metrics = {f"compute/{name}_s": value for name, value in state.phases.items()}
    stale = [tag for tag in end.remove if tag in found.tags]
    run.log({**place_tags(state), **tags, **end.tags}, metrics)
    if end.status in TERMINAL:
        run.remove_tags(stale)
        run.set_status(end.status, ended=True)
    else:
        run.set_status(end.status, ended=False)
        run.remove_tags(stale)
    told = {
        **{tag: found.tags.get(tag) for tag in (TAG_CAUSE, TAG_MESSAGE) if tag not in end.remove},
        **end.tags,
    }
    return Outcome(TOLD, end.status, told.get(TAG_CAUSE), told.get(TAG_MESSAGE))


def _end_tags_of(found: RunInfo) -> Dict[str, str]:
    return {tag: found.tags[tag] for tag in END_TAGS if tag in found.tags}


def place_tags(state: State) -> Dict[str, str]:
    """Where the run is, as far as that is known."""
    attempt: Optional[str] = str(state.attempt) if state.attempt > 1 else None
    known = {
        TAG_NODE: state.node,
        TAG_IMAGE: state.image,
        TAG_POD: state.pod,
        TAG_JOB_UID: state.job_uid,
        TAG_ATTEMPT: attempt,
    }
    return {tag: value for tag, value in known.items() if value}
