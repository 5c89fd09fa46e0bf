"""What came of reporting: the reporter's last word to the runner, and to a client on the same
machine. One small JSON file.
"""

import json
import os
from typing import NamedTuple, Optional

FILE_NAME = "outcome.json"
TOLD, REFUSED, DELETED, GAVE_UP = "told", "refused", "deleted", "gave up"


class Outcome(NamedTuple):
    """`kind` is TOLD: MLflow knows the end, which has this status and cause (a script's own verdict
    is in it).

    REFUSED: the server rejected the run from the beginning, with this message. DELETED: the run was
    deleted in MLflow. GAVE_UP: the server did not answer in time, or its answers made no sense.
    """

    kind: str
    status: Optional[str] = None
    cause: Optional[str] = None
    message: Optional[str] = None

    def write(self, directory: str) -> None:
        """Replace the file.

        A directory that is gone or full is no error: there is no reader left.
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
