"""What a tracking server says of a run, and what its answer means for the caller."""

from typing import Dict, NamedTuple


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
