"""What the supervisor tells the reporter: one small JSON file, replaced atomically."""

import json
import os
from typing import Dict, Optional

FILE_NAME = "state.json"


class State:
    """How far the run is. `phases` are durations in seconds; `status` is set once it has ended, SCHEDULED if it will be retried."""

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
        attempt: int = 1,
        phases: Optional[Dict[str, float]] = None,
    ):
        self.started = started
        self.status = status
        self.exit_code = exit_code
        self.cause = cause
        self.message = message
        self.node = node
        self.image = image
        self.pod = pod
        self.attempt = attempt
        self.phases = phases or {}

    def write(self, directory: str) -> None:
        path = os.path.join(directory, FILE_NAME)
        with open(path + ".tmp", "w") as file:
            json.dump(vars(self), file)
        os.replace(path + ".tmp", path)

    @staticmethod
    def read(directory: str) -> "State":
        """The last state written; a fresh one before the first."""
        try:
            with open(os.path.join(directory, FILE_NAME)) as file:
                return State(**json.load(file))
        except FileNotFoundError:
            return State()
