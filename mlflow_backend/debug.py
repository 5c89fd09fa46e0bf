"""What the client does, for people who look for a fault: `MLFLOW_COMPUTE_DEBUG=1` shows it.

Every module logs to the logger of its name. Nothing is shown without the variable; with it, calls
to the cluster and to MLflow, decisions and tracebacks go to standard error.
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
    """Lines without the login and the credentials of URLs, and without what a terminal obeys."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        text = login.hide(redact(super().format(record)))
        return "\n".join(map(plain, text.split("\n")))


def show_if_asked(environ: Mapping[str, str] = os.environ) -> None:
    """Show what is logged if the variable is set, once however often this is called."""
    logger = logging.getLogger(LOGGER)
    is_shown = any(isinstance(handler.formatter, Formatter) for handler in logger.handlers)
    if environ.get(VARIABLE, "") in ("", "0") or is_shown:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
