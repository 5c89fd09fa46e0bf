"""The client's debug log: `MLFLOW_COMPUTE_DEBUG=1` shows it on standard error.

Every module logs to the logger of its name: calls to the cluster and to MLflow, decisions and
tracebacks.
"""

import logging
import os
import sys
from collections.abc import Mapping

from mlflow_backend.errors import redact
from mlflow_backend.plain_text import plain
from mlflow_runner.tracking import login

VARIABLE = "MLFLOW_COMPUTE_DEBUG"
LOGGER = "mlflow_backend"


class Formatter(logging.Formatter):
    """Lines without credentials and without control characters."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        text = login.hide(redact(super().format(record)))
        return "\n".join(map(plain, text.split("\n")))


def show_if_asked(environ: Mapping[str, str] = os.environ) -> None:
    """Show the log if the variable is set; a second call changes nothing."""
    logger = logging.getLogger(LOGGER)
    is_shown = any(isinstance(handler.formatter, Formatter) for handler in logger.handlers)
    if environ.get(VARIABLE, "") in ("", "0") or is_shown:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
