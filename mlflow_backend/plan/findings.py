"""What checks of a plan find before anything is created: values that a submit, a dry run and other
commands show or act on alike.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from mlflow_backend.errors import ComputeError
from mlflow_backend.explanations import Code


@dataclass(frozen=True)
class Finding:
    """One result: an `error` would make the run fail, a `warning` may."""

    level: Literal["error", "warning"]
    code: Code
    what: str
    hint: str = ""

    @staticmethod
    def of(error: ComputeError) -> "Finding":
        """The finding that says what an error says."""
        return Finding("error", error.code, error.message, error.hint)

    def __str__(self) -> str:
        return f"{self.level}: {self.what}" + (f": {self.hint}" if self.hint else "")


class Rejected(ComputeError):
    """A plan with findings that are errors: the first one's words and code; all are `findings`."""

    def __init__(self, findings: list[Finding]) -> None:
        first = findings[0]
        super().__init__(first.what, code=first.code, hint=first.hint)
        self.findings = findings


Check = Callable[[], Iterable[Finding]]


def run(checks: Iterable[Check]) -> list[Finding]:
    """The findings of the checks, which run at the same time, in their order. A ComputeError that a
    check raises is a finding too.
    """

    def one(check: Check) -> list[Finding]:
        try:
            return list(check())
        except ComputeError as error:
            return [Finding.of(error)]

    checks = list(checks)
    with ThreadPoolExecutor(len(checks) or 1) as pool:
        return [finding for findings in pool.map(one, checks) for finding in findings]


def refuse(findings: Iterable[Finding]) -> None:
    """Raise Rejected if a finding is an error."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        raise Rejected(errors)
