"""What the supervisor tells the reporter: one small JSON file, replaced atomically."""

import json
import os
from typing import Dict, Optional

from mlflow_runner.contract.topology import Member

FILE_NAME = "state.json"
DATA, STATE, QUIT = b"d", b"s", b"q"
"""What the reporter reads from its standard input: new output, a new state, end now.

The end of it: the supervisor is gone.
"""
AFTER_END_S = 60.0
"""How long log and files may take after the end has been told, or the Submission's
`report_timeout_s` if that is shorter.
"""
RESERVE = "reserve"
RESERVE_BYTES = 64 * 1024


class State:
    """How far the run is, for the pod at `index` of its Job. `speaks`: this pod tells MLflow the
    run's status.

    `phases` are durations in seconds; `status` is set once it has ended, SCHEDULED if it will be
    retried.
    """

    def __init__(
        self,
        started: bool = False,
        status: Optional[str] = None,
        exit_code: Optional[int] = None,
        cause: Optional[str] = None,
        message: Optional[str] = None,
        node: Optional[str] = None,
        image: Optional[str] = None,
        pod: Optional[str] = None,
        job_uid: Optional[str] = None,
        attempt: int = 1,
        index: int = 0,
        speaks: bool = True,
        phases: Optional[Dict[str, float]] = None,
    ) -> None:
        self.started = started
        self.status = status
        self.exit_code = exit_code
        self.cause = cause
        self.message = message
        self.node = node
        self.image = image
        self.pod = pod
        self.job_uid = job_uid
        self.attempt = attempt
        self.index = index
        self.speaks = speaks
        self.phases = phases or {}

    @property
    def member(self) -> Member:
        """The pod's place in its Job."""
        return Member(self.index, self.attempt)

    @staticmethod
    def reserve(directory: str) -> None:
        """Keep room on the disk for the state, should the command fill it."""
        with open(os.path.join(directory, RESERVE), "wb") as file:
            file.write(b"\0" * RESERVE_BYTES)

    def write(self, directory: str) -> None:
        """Replace the file; on a full disk in the place that was kept for it."""
        path = os.path.join(directory, FILE_NAME)
        try:
            self._write(path)
        except OSError:
            reserve = os.path.join(directory, RESERVE)
            if os.path.exists(reserve):
                os.unlink(reserve)
            self._write(path)

    def _write(self, path: str) -> None:
        with open(path + ".tmp", "w") as file:
            json.dump(vars(self), file)
        os.replace(path + ".tmp", path)

    @staticmethod
    def read(directory: str) -> "State":
        """The last state written; a fresh one before the first, or where the file is not one of
        ours.
        """
        try:
            with open(os.path.join(directory, FILE_NAME)) as file:
                return State(**json.load(file))
        except (OSError, ValueError, TypeError):
            return State()
