"""The termination message: the end of a run as Kubernetes stores it with the pod.

`kubectl describe pod` shows it, and the client reads it when MLflow does not know the end.
"""

import contextlib
import json
from typing import Optional

from mlflow_runner.contract.outcome import Outcome

MOST_BYTES = 4096
"""The kubelet cuts a longer message, which would no longer be JSON."""


def write_message(path: str, end: Outcome, exit_code: Optional[int], reported: bool) -> None:
    """Write the end to the termination log `path`, as far as it can be written: the log has it too.

    `reported`: MLflow knows the end.
    """
    with contextlib.suppress(OSError), open(path, "w") as file:
        file.write(format_message(end, exit_code, reported))


def format_message(end: Outcome, exit_code: Optional[int], reported: bool) -> str:
    """The end as JSON, with a message short enough for `MOST_BYTES`."""
    message = end.message or ""
    while True:
        text = json.dumps(
            {
                "status": end.status,
                "exit_code": exit_code,
                "cause": end.cause,
                "message": message,
                "reported": reported,
            }
        )
        if len(text) <= MOST_BYTES or not message:
            return text
        message = message[: len(message) // 2]
