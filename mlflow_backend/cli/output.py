"""The output of all commands: tables, and errors as one line."""

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec, TypeVar

import click

from mlflow_backend.plain_text import plain

log = logging.getLogger(__name__)

UNLIMITED_WIDTH = 10_000
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as wide as the terminal; if the output is not a terminal, as wide as its texts.

    Texts are data, not markup.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(plain(str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else UNLIMITED_WIDTH, highlight=False).print(table)


def report_errors(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Print an error that the user can fix as one line on standard error, and exit with 1. With
    `--json` the command also prints the error's fields, as `{"error": {...}}`.
    """

    @functools.wraps(function)
    def call(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        try:
            return function(*arguments, **keywords)
        except _error_classes() as error:
            log.debug("failed", exc_info=error)
            if click.get_current_context().params.get("as_json"):
                click.echo(json.dumps({"error": fields(error)}, indent=2))
            raise click.ClickException(format_error(error)) from None

    return call


def format_error(error: Exception) -> str:
    """The error's text, made safe for a terminal; only the first line of an error of MLflow, as a
    traceback may follow.
    """
    from mlflow_backend.errors import ComputeError

    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "\n".join(map(plain, lines if isinstance(error, ComputeError) else lines[:1]))


def fields(error: Exception) -> dict[str, str]:
    """The error as a JSON object: `code`, `message`, `hint`, `doc`."""
    from mlflow_backend.errors import ComputeError, TrackingError

    if not isinstance(error, ComputeError):  # MLflow's own
        error = TrackingError(format_error(error))
    return error.fields()


def _error_classes() -> tuple[type[Exception], ...]:
    """The classes of errors that the user can fix.

    MLflow's own class only if MLflow is loaded, as importing it takes a second.
    """
    from mlflow_backend.errors import ComputeError

    mlflow = sys.modules.get("mlflow.exceptions")
    return (ComputeError, mlflow.MlflowException) if mlflow else (ComputeError,)
