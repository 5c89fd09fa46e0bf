"""A run's end in words: what happened, the evidence, and what to do. Pure."""

from dataclasses import dataclass

from mlflow_backend.plain_text import plain
from mlflow_runner.contract.causes import Cause


@dataclass(frozen=True)
class Diagnosis:
    """A run's end as its place shows it: what happened in a few words, the place's own words, and
    what to do.
    """

    status: str
    cause: Cause | None
    summary: str
    detail: str = ""
    hint: str = ""
    exit_code: int | None = None

    @property
    def message(self) -> str:
        """All of it as one line, for the tag `compute.message`."""
        what = (
            f"{self.summary.rstrip('.')}: {one_line(self.detail)}" if self.detail else self.summary
        )
        return (
            f"{what.rstrip('.')}. {self.hint[:1].upper()}{self.hint[1:].rstrip('.')}."
            if self.hint
            else f"{what.rstrip('.')}."
        )


def one_line(text: str) -> str:
    """A text of the cluster as one line that a terminal can show."""
    return plain(" ".join(text.split()))
