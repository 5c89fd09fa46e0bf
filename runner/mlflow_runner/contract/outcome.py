"""The result of reporting: what the reporter leaves for the runner, and for a client on the same
machine. One small JSON file.
"""

import json
import os
from typing import NamedTuple, Optional

FILE_NAME = "outcome.json"
ENDED, REFUSED, DELETED, GAVE_UP = "ended", "refused", "deleted", "gave up"


class Outcome(NamedTuple):
    """How reporting ended.

    `kind` is ENDED: MLflow has the end, with this status and cause (a status that the script set
    itself is taken into account). REFUSED: the server rejected the run from the beginning, with
    this message. DELETED: the run was deleted in MLflow. GAVE_UP: the server did not answer in
    time, or its answers were not MLflow's.
    """

    kind: str
    status: Optional[str] = None
    cause: Optional[str] = None
    message: Optional[str] = None

    def write(self, directory: str) -> None:
        """Replace the file.

        A directory that is missing or full is not an error: then there is no reader either.
        """
        path = os.path.join(directory, FILE_NAME)
        try:
            with open(path + ".tmp", "w") as file:
                json.dump(self._asdict(), file)
            os.replace(path + ".tmp", path)
        except OSError:
            pass

    @staticmethod
    def read(directory: str) -> Optional["Outcome"]:
        """None before the reporter has written it."""
        try:
            with open(os.path.join(directory, FILE_NAME)) as file:
                return Outcome(**json.load(file))
        except (OSError, ValueError, TypeError):
            return None
