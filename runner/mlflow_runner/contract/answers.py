"""What a tracking server answers about a run, and what its errors mean for the caller."""

from typing import Dict, NamedTuple, Type


class RunInfo(NamedTuple):
    """A run as the tracking server has it. A `deleted` run can be read but not changed."""

    status: str
    artifact_uri: str
    tags: Dict[str, str]
    run_id: str = ""
    experiment_id: str = ""
    deleted: bool = False


class Unavailable(Exception):
    """The server is unreachable or reports a temporary error: the same call may succeed later."""


class Refused(Exception):
    """The server rejected the call: repeating it does not help.

    `hint` says what to do, or is empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Denied(Refused):
    """The login or the permission is missing (401, 403), or the server's certificate is not
    trusted.
    """


class Missing(Refused):
    """The server has no such run or artifact (404).

    `is_mlflows`: the answer is MLflow's own, not that of a proxy that does not find MLflow.
    """

    is_mlflows = False


class TooLarge(Refused):
    """The server rejects a body of this size (413)."""


class NeedsMlflow(Exception):
    """The call needs the package mlflow, which this Python does not have."""


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
fails with another code; the client, where a user waits, does not.
"""
DENIED_STATUS = (401, 403)
TRANSIENT_STATUS = (408, 425, 429)
"""HTTP statuses, in addition to 5xx: https://www.rfc-editor.org/rfc/rfc9110#section-15"""


def is_transient_status(status: int) -> bool:
    """Whether a call that failed with this HTTP status may succeed when repeated."""
    return status in TRANSIENT_STATUS or not 400 <= status < 500
