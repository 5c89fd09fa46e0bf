"""Errors that the user can fix: what is wrong and where, what to do, and a stable code.

Nothing here imports MLflow at its top: the controller does without MLflow and its 70 MB of memory.
"""

import contextlib
import difflib
import logging
from collections.abc import Iterable, Iterator

from mlflow_backend.explanations import Code
from mlflow_backend.plain_text import plain
from mlflow_runner.contract.redact import redact as redact
from mlflow_runner.contract.redact import without_logins as without_logins

log = logging.getLogger(__name__)


class ComputeError(Exception):
    """Base of all errors of this package; `str()` is one line, or the solver's lines.

    `message` says what is wrong and where, `hint` what to do (may be empty). `code` is stable;
    `mlflow-compute explain CODE` (`doc`) prints its meaning from `explanations`. No text contains
    the credentials of a URL (`redact`), or a control character from a file's name or content
    (`plain`).
    """

    code: Code

    def __init__(self, message: str, *, code: Code | None = None, hint: str = "") -> None:
        self.message, self.hint = self._clean(message), self._clean(hint)
        if code is not None:
            self.code = code
        separator = "\n" if "\n" in self.message else ": "
        super().__init__(separator.join(filter(None, (self.message, self.hint))))

    @property
    def doc(self) -> str:
        """The command that explains the code."""
        return f"mlflow-compute explain {self.code}"

    def fields(self) -> dict[str, str]:
        """The error as a JSON object: `code`, `message`, `hint`, `doc`."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "doc": self.doc}

    @staticmethod
    def _clean(text: str) -> str:
        return "\n".join(map(plain, redact(text).split("\n")))


class _OneLine(ComputeError):
    @staticmethod
    def _clean(text: str) -> str:
        return ComputeError._clean(" ".join(text.split("\n")))


class ConfigError(_OneLine):
    """A backend_config or a targets file that cannot be used."""

    code = "InvalidValue"


class ProjectError(_OneLine):
    """A project that cannot be read or run."""

    code = "InvalidFile"


class SnapshotError(_OneLine):
    """Files that cannot travel with the run."""

    code = "UnusableFile"


class EnvironmentSpecError(ComputeError):
    """An environment file with an entry that cannot be locked or installed."""

    code = "InvalidRequirement"


class TrackingError(ComputeError):
    """A tracking server that rejects a call: repeating it does not help."""

    code: Code = "TrackingRefused"


class TrackingUnavailable(TrackingError):
    """A tracking server that does not answer now: the same call may succeed later."""

    code = "TrackingUnavailable"


class ClusterError(ComputeError):
    """A cluster that refuses a call: repeating it does not help."""

    code: Code = "ClusterRefused"


class ClusterUnavailable(ClusterError):
    """A cluster that does not answer now, or is overloaded: the same call may succeed later."""

    code = "ClusterUnavailable"


class UnknownCluster(ClusterError):
    """A context that the kubeconfig lacks, or one of another cluster than the run's."""

    code = "UnknownCluster"


class AlreadyExists(ClusterError):
    """An object of this name exists already: another submit or another program created it."""

    code = "AlreadyExists"


@contextlib.contextmanager
def raise_as_mlflow() -> Iterator[None]:
    """Raise a ComputeError as MLflow's ExecutionException, with the ComputeError as `__cause__`.

    `mlflow run` prints an ExecutionException as one line and exits 1; any other class is a
    traceback.
    """
    try:
        yield
    except ComputeError as error:
        from mlflow.exceptions import ExecutionException

        log.debug("refused", exc_info=error)
        raise ExecutionException(str(error)) from error


def nearest(word: str, valid: Iterable[str]) -> str:
    """A hint for a wrong `word`: the valid word nearest to it as a question, else all of them."""
    names = sorted(valid)
    near = difflib.get_close_matches(word, names, n=1) or difflib.get_close_matches(
        word.lower(), [name.lower() for name in names], n=1
    )
    if near:
        return f"did you mean '{next(name for name in names if name.lower() == near[0].lower())}'?"
    return "known: " + (", ".join(names) or "none")
