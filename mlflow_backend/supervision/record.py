"""What MLflow knows of a run, and where runs are read and written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_backend.timestamps import seconds
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.ending import is_told
from mlflow_runner.contract.tags import TAG_CAUSE, TAG_PARENT, TAG_STATUS, TAG_SUBMITTED

UNFINISHED = (
    "attributes.status = 'RUNNING'",
    "attributes.status = 'SCHEDULED'",
    f"attributes.status = 'KILLED' AND tags.`{TAG_CAUSE}` = '{Cause.TERMINATED}'",
    f"attributes.status = 'KILLED' AND tags.`{TAG_STATUS}` != 'KILLED'",
)
"""Filters that find the runs without a final state in MLflow, one search each: a filter has no
`or`. The last two are runs whose pod was stopped: nothing followed yet, or what followed died
between the two writes of its end.
"""


@dataclass(frozen=True)
class RunRecord:
    """What MLflow knows of a run; `started_s` is when it was created, in seconds since the epoch.

    A deleted run is a cancelled one.
    """

    run_id: str
    status: str
    tags: Mapping[str, str]
    started_s: float
    experiment_id: str = ""
    is_deleted: bool = False

    @property
    def submitted_s(self) -> float:
        """When it was last sent to a cluster, which may be long after it was created
        (`--run-id`).
        """
        try:
            return seconds(self.tags[TAG_SUBMITTED])
        except (KeyError, ValueError):
            return self.started_s


class Runs(Protocol):
    """Where runs are read and written: MLflow, through any client."""

    def read(self, run_id: str) -> RunRecord:
        """The run as MLflow has it now."""
        ...

    def end(self, run_id: str, end: Diagnosis) -> None:
        """Write the run's end."""
        ...

    def children(self, parent: RunRecord) -> Iterable[RunRecord]:
        """The nested runs directly below a run, in its experiment, that are RUNNING or
        SCHEDULED.
        """
        ...


def has_ended(run: RunRecord) -> bool:
    """Whether a run has its final status, told by the runner or a settler and not by the user's
    script alone.

    Nothing can be written to a deleted run: it has ended too, whatever its status.
    """
    return run.is_deleted or is_told(run.status, run.tags)


def unfinished_below(parent: RunRecord) -> list[str]:
    """Filters that find the unfinished nested runs directly below a run, one search each."""
    return [
        f"tags.`{TAG_PARENT}` = '{parent.run_id}' AND attributes.status = '{status}'"
        for status in ("RUNNING", "SCHEDULED")
    ]
