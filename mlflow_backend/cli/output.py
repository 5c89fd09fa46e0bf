"""What the commands have in common: tables for people, and errors as one line."""

import functools
import sys
from collections.abc import Callable, Iterable, Sequence

import click


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table as wide as the terminal; where the output is no terminal, wide enough for everything."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=None if sys.stdout.isatty() else 250).print(table)


def mended_by_user(function: Callable) -> Callable:
    """Show what a user can mend as its one line, and exit with 1."""

    @functools.wraps(function)
    def call(*arguments, **keywords):
        from mlflow_backend.errors import ComputeError

        try:
            return function(*arguments, **keywords)
        except ComputeError as error:
            raise click.ClickException(str(error)) from None
        except Exception as error:  # MLflow's own class for the same, without importing it where nothing else does
            if type(error).__name__ == "ExecutionException":
                raise click.ClickException(str(error)) from None
            raise

    return call
