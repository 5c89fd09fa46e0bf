"""What a tracking server says of a run, and what its answer means for the caller."""

from typing import Dict, NamedTuple, Type


class RunInfo(NamedTuple):
    """What the tracking server knows of a run; `deleted` runs can be read, and refuse every
    change.
    """

    status: str
    artifact_uri: str
    tags: Dict[str, str]
    run_id: str = ""
    experiment_id: str = ""
    deleted: bool = False


class Unavailable(Exception):
    """The server cannot be reached or is in trouble: the same call may succeed later."""


class Refused(Exception):
    """The server understood and said no: the same call meets the same answer.

    `hint` is a sentence on what to do, or empty.
    """

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.hint = hint


class Denied(Refused):
    """The login, or the right to do this, is missing (401, 403), or the server's certificate is not
    trusted.
    """


class Missing(Refused):
    """The server has no such run or artifact (404).

    `is_mlflows`: MLflow says so itself, and not a proxy that cannot find MLflow.
    """

    is_mlflows = False


class TooLarge(Refused):
    """The server takes no body of this size (413)."""


class NeedsMlflow(Exception):
    """Only MLflow's own client can do this, and this Python has none."""


NOT_THERE = "RESOURCE_DOES_NOT_EXIST"
CODES: Dict[str, Type[Exception]] = {
    "INTERNAL_ERROR": Unavailable,
    "TEMPORARILY_UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable,
    "REQUEST_LIMIT_EXCEEDED": Unavailable,
    "RESOURCE_EXHAUSTED": Unavailable,
    "CANCELLED": Unavailable,
    "ABORTED": Unavailable,
    NOT_THERE: Missing,
    "UNAUTHENTICATED": Denied,
    "CUSTOMER_UNAUTHORIZED": Denied,
    "PERMISSION_DENIED": Denied,
    "INVALID_PARAMETER_VALUE": Refused,
    "BAD_REQUEST": Refused,
}
"""What MLflow's error codes mean (mlflow/protos/databricks.proto). The runner repeats a call that
meets another code; the client, for which a user waits, does not.
"""
TRANSIENT_STATUS = (408, 425, 429)
"""Of HTTP, as are all from 500 on: https://www.rfc-editor.org/rfc/rfc9110#section-15"""


def is_transient_status(status: int) -> bool:
    """Whether a call that met this HTTP status, which is no success, may succeed when repeated."""
    return status in TRANSIENT_STATUS or not 400 <= status < 500
