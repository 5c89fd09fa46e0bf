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
"""MLflow's client tries for minutes to reach a server (7 tries, 120 s each); a person who types a
command is told within seconds.
"""


class Lazy(click.Group):
    """A group whose further commands are imported when they are needed."""

    def list_commands(self, context):
        return sorted([*super().list_commands(context), *COMMANDS])

    def get_command(self, context, name):
        if name in COMMANDS:
            module, attribute = COMMANDS[name]
            return getattr(importlib.import_module(f"mlflow_backend.cli.{module}"), attribute)
        return super().get_command(context, name)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlflow-compute", prog_name="mlflow-compute")
def main() -> None:
    """Run MLflow Projects on this machine or as Kubernetes Jobs: what `mlflow run --backend
    compute` works with.
    """
    from mlflow_backend import debug, scratch
    from mlflow_runner.contract import tracking_variables

    debug.show_if_asked()
    scratch.end_in_order()
    tracking_variables.strip(os.environ)
    # standard output is for what was asked
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name, value in IMPATIENT.items():
        os.environ.setdefault(name, value)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a terminal that is not UTF-8, and a run's name that is
        sys.stdout.reconfigure(errors="backslashreplace")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def version(as_json: bool) -> None:
    """Show the versions of this package and of what it works with."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    found = {"python": platform.python_version()}
    for package in ("mlflow-compute", "mlflow", "mlflow-skinny", "kubernetes", "uv", "py-rattler"):
        try:
            found[package] = version_of(package)
        except PackageNotFoundError:
            continue
    click.echo(
        json.dumps(found, indent=2)
        if as_json
        else "\n".join(f"{name} {value}" for name, value in found.items())
    )


if __name__ == "__main__":
    main()
