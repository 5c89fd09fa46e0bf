"""The status channel: RUNNING, the end and its tags. It alone decides whether the server accepts
the run.
"""

from typing import TYPE_CHECKING, Callable, Dict, Optional, Tuple, TypeVar

from mlflow_runner.contract.answers import Denied, Missing, Refused, RunInfo, Unavailable
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import TERMINAL, ending, is_told, speaks_for
from mlflow_runner.contract.outcome import ENDED, Outcome
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

if TYPE_CHECKING:
    from mlflow_runner.tracking import RunClient

T = TypeVar("T")


class Deleted(Exception):
    """The run was deleted in MLflow: its command is stopped, and reporting ends."""


class Status:
    """The run's status and tags in MLflow. `connect` returns the client for the run.

    `is_accepted` is set once the server has accepted a change of the run.
    """

    def __init__(self, directory: str, connect: Callable[[], "RunClient"]) -> None:
        self._progress = Progress(directory, "status")
        self._connect = connect
        self._run: Optional["RunClient"] = None
        self._is_running_written: bool = self._progress.get("running", False)
        self._stale: Dict[str, str] = self._progress.get("stale", {})
        self.is_accepted: bool = self._progress.get("accepted", False)

    @property
    def run(self) -> "RunClient":
        """The client for the run. Raises NeedsMlflow."""
        if self._run is None:
            self._run = self._connect()
        return self._run

    def look(self, state: State) -> RunInfo:
        """The run as MLflow has it; write RUNNING once the command has been started.

        Raises Deleted, Unavailable, or a class of Refused, as all methods.
        """
        info = self._get()
        if not state.started or state.status:
            return info
        if not self._is_running_written:
            self._stale = self._change(lambda: write_running(self.run, info, state))
            self._is_running_written = True
            self._progress.set(running=True, stale=self._stale)
        if self._stale:
            self._change(lambda: remove_earlier_end(self.run, info, self._stale))
            self._stale = {}
            self._progress.set(stale={})
        return info

    def write_end(self, state: State, tags: Dict[str, str]) -> Tuple[RunInfo, Outcome]:
        """Write the run's end together with `tags`; the run as MLflow had it before."""
        info = self._get()
        return info, self._change(lambda: write_end(self.run, info, state, tags))

    def write_tags(self, tags: Dict[str, str]) -> None:
        """Set tags of the run."""
        self._change(lambda: self.run.log(tags, {}))

    def _get(self) -> RunInfo:
        info = self._call(self.run.get)
        if info.deleted:
            raise Deleted
        return info

    def _change(self, function: Callable[[], T]) -> T:
        result = self._call(function)
        self.is_accepted = True
        self._progress.set(accepted=True)
        return result

    def _call(self, function: Callable[[], T]) -> T:
        """Only a login or a run that the server rejects from the beginning is refused; any other
        refusal may be temporary.
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


def write_running(run: "RunClient", info: RunInfo, state: State) -> Dict[str, str]:
    """Write RUNNING, unless another pod sets the run's status, the run has ended, or it was
    cancelled before it began.

    Returns the end tags of an earlier attempt, to be removed after this (`remove_earlier_end`): a
    KILLED run without them counts as one that a user marked.
    """
    was_stopped = info.status == "KILLED" and info.tags.get(TAG_CAUSE) == Cause.TERMINATED
    if (
        not speaks_for(info, state)
        or is_told(info.status, info.tags)
        or (info.status == "KILLED" and not was_stopped)
    ):
        return {}
    run.log(place_tags(state), {})
    run.set_status("RUNNING", ended=False)
    return _end_tags_of(info)


def remove_earlier_end(run: "RunClient", info: RunInfo, stale: Dict[str, str]) -> None:
    """Remove the end tags of an earlier attempt, unless another process has written an end
    since.
    """
    left = _end_tags_of(info)
    if left.items() <= stale.items():
        run.remove_tags(list(left))


def write_end(run: "RunClient", info: RunInfo, state: State, tags: Dict[str, str]) -> Outcome:
    """Write the end of `state`: all tags in one call, then the removal of stale tags, and the
    status last. A reader trusts the tags only then.

    SCHEDULED is not an end: here the status precedes the removal, as in `write_running`.
    """
    end = ending(info, state)
    if end is None:
        return Outcome(
            ENDED,
            state.status,
            state.cause,
            "Another pod sets the end of this run.",
        )
    metrics = {f"compute/{name}_s": value for name, value in state.phases.items()}
    stale = [tag for tag in end.remove if tag in info.tags]
    run.log({**place_tags(state), **tags, **end.tags}, metrics)
    if end.status in TERMINAL:
        run.remove_tags(stale)
        run.set_status(end.status, ended=True)
    else:
        run.set_status(end.status, ended=False)
        run.remove_tags(stale)
    result = {
        **{tag: info.tags.get(tag) for tag in (TAG_CAUSE, TAG_MESSAGE) if tag not in end.remove},
        **end.tags,
    }
    return Outcome(ENDED, end.status, result.get(TAG_CAUSE), result.get(TAG_MESSAGE))


def _end_tags_of(info: RunInfo) -> Dict[str, str]:
    return {tag: info.tags[tag] for tag in END_TAGS if tag in info.tags}


def place_tags(state: State) -> Dict[str, str]:
    """The tags that say where the run is, as far as that is known."""
    tags = {
        TAG_NODE: state.node,
        TAG_IMAGE: state.image,
        TAG_POD: state.pod,
        TAG_JOB_UID: state.job_uid,
        TAG_ATTEMPT: str(state.attempt) if state.attempt > 1 else None,
    }
    return {tag: value for tag, value in tags.items() if value}
