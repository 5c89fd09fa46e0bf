"""The command `mlflow-compute`."""

import importlib
import io
import json
import os
import sys

import click

COMMANDS = {
    "cancel": ("runs", "cancel"),
    "controller": ("controller", "command"),
    "env": ("env", "command"),
    "explain": ("explain", "command"),
    "logs": ("runs", "logs"),
    "runs": ("runs", "runs"),
    "settle": ("runs", "settle"),
    "targets": ("targets", "command"),
    "wait": ("runs", "wait"),
}
"""Module and name of each command; a module is imported when one of its commands is called."""
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""Limits for MLflow's client, so that a command reports an outage within seconds: by default it
tries seven times, 120 s each.
"""


class Lazy(click.Group):
    """A group that imports the modules of its commands when they are called."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The names of all commands, sorted."""
        return sorted([*super().list_commands(context), *COMMANDS])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command; None for an unknown name."""
        if name not in COMMANDS:
            return super().get_command(context, name)
        module, attribute = COMMANDS[name]
        command: click.Command = getattr(
            importlib.import_module(f"mlflow_backend.cli.{module}"), attribute
        )
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlflow-compute", prog_name="mlflow-compute")
def main() -> None:
    """Manage the runs, targets and environments of `mlflow run --backend compute`, which runs
    MLflow Projects on this machine or as Kubernetes Jobs.
    """
    from mlflow_backend import debug, scratch
    from mlflow_runner.contract import tracking_variables

    debug.show_if_asked()
    scratch.end_in_order()
    tracking_variables.strip(os.environ)
    # standard output is for the result
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name, value in IMPATIENT.items():
        os.environ.setdefault(name, value)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a run's name may have characters that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def version(as_json: bool) -> None:
    """Show the versions of this package, of Python and of the main dependencies."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    versions = {"python": platform.python_version()}
    for package in ("mlflow-compute", "mlflow", "mlflow-skinny", "kubernetes", "uv", "py-rattler"):
        try:
            versions[package] = version_of(package)
        except PackageNotFoundError:
            continue
    click.echo(
        json.dumps(versions, indent=2)
        if as_json
        else "\n".join(f"{name} {value}" for name, value in versions.items())
    )


if __name__ == "__main__":
    main()
