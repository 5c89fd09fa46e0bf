"""What the commands have in common: tables for people, and errors as one line."""

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence

import click

from mlflow_backend.plain_text import plain

log = logging.getLogger(__name__)

UNLIMITED_WIDTH = 10_000


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table as wide as the terminal; where the output is not a terminal, as wide as its texts.

    Texts are data, never markup.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(plain(str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else UNLIMITED_WIDTH, highlight=False).print(table)


def report_errors(function: Callable) -> Callable:
    """Show an error that the user can fix as one line on standard error, and exit with 1; a command
    that was asked for JSON prints the error's fields too, as `{"error": {...}}`.
    """

    @functools.wraps(function)
    def call(*arguments, **keywords):
        try:
            return function(*arguments, **keywords)
        except _reported() as error:
            log.debug("failed", exc_info=error)
            if click.get_current_context().params.get("as_json"):
                click.echo(json.dumps({"error": fields(error)}, indent=2))
            raise click.ClickException(readable(error)) from None

    return call


def readable(error: Exception) -> str:
    """The error's text as it may be written to a terminal.

    Of MLflow's errors the first line: a traceback may follow it.
    """
    from mlflow_backend.errors import ComputeError

    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "\n".join(map(plain, lines if isinstance(error, ComputeError) else lines[:1]))


def fields(error: Exception) -> dict[str, str]:
    """The error as a JSON object: `code`, `message`, `hint`, `doc`."""
    from mlflow_backend.errors import ComputeError, TrackingError

    if not isinstance(error, ComputeError):  # MLflow's own
        error = TrackingError(readable(error))
    return error.fields()


def _reported() -> tuple[type[Exception], ...]:
    """The classes of such errors.

    MLflow's counts where MLflow is loaded: without it nothing raises it, and importing it takes a
    second.
    """
    from mlflow_backend.errors import ComputeError

    mlflow = sys.modules.get("mlflow.exceptions")
    return (ComputeError, mlflow.MlflowException) if mlflow else (ComputeError,)
