"""Errors that the user can fix: one line that says what, where, and what to do.

Nothing here imports MLflow, which a process without it (the controller) would pay for with 70 MB.
"""

import contextlib
import difflib
import logging
from collections.abc import Iterable, Iterator

from mlflow_backend.plain_text import plain
from mlflow_runner.contract.redact import redact as redact
from mlflow_runner.contract.redact import without_logins as without_logins

log = logging.getLogger(__name__)


class ComputeError(Exception):
    """Base of all errors of this package.

    The message shows no credentials of a URL (`redact`), and nothing of a file's name or content
    that a terminal would obey (`plain`).
    """

    def __init__(self, message: str):
        super().__init__("\n".join(map(plain, redact(message).split("\n"))))


class _OneLine(ComputeError):
    def __init__(self, message: str):
        super().__init__(" ".join(message.split("\n")))


class ConfigError(_OneLine):
    """A backend_config or a targets file that cannot be used."""


class ProjectError(_OneLine):
    """A project that cannot be read or run."""


class SnapshotError(_OneLine):
    """Files that cannot travel with the run."""


class EnvironmentSpecError(ComputeError):
    """An environment file with an entry that cannot be made."""


class TrackingError(ComputeError):
    """A tracking server that the run could not report to."""


class TrackingUnavailable(TrackingError):
    """A tracking server that does not answer now: the same call may succeed later."""


class ClusterError(ComputeError):
    """A cluster that refuses a call: repeating it does not help."""


class ClusterUnavailable(ClusterError):
    """A cluster that does not answer now, or is overloaded: the same call may succeed later."""


class UnknownCluster(ClusterError):
    """A context that the kubeconfig does not have, or a run that was sent to another cluster than
    the one it leads to.
    """


class AlreadyExists(ClusterError):
    """An object of this name is there already, made by another submit or another program."""


@contextlib.contextmanager
def as_mlflow_does() -> Iterator[None]:
    """At the border to MLflow: `mlflow run` prints an ExecutionException as one line and exits 1;
    any other class is a traceback.
    """
    try:
        yield
    except ComputeError as error:
        from mlflow.exceptions import ExecutionException

        log.debug("refused", exc_info=error)
        raise ExecutionException(str(error)) from error


def hint(word: str, known: Iterable[str]) -> str:
    """The nearest known word as a question, or all of them: the tail of an error's sentence."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1) or difflib.get_close_matches(
        word.lower(), [name.lower() for name in names], n=1
    )
    if near:
        return f"did you mean '{next(name for name in names if name.lower() == near[0].lower())}'?"
    return "known: " + (", ".join(names) or "none")
