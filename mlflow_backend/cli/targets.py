"""`mlflow-compute targets`: list the compute targets, and allow a targets file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_backend.cli.output import print_table, report_errors

if TYPE_CHECKING:
    from mlflow_backend.targets.target import Target


@click.group("targets", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
@report_errors
def command(context: click.Context, as_json: bool) -> None:
    """List the compute targets of `mlflow run .` in this folder, and where each is defined."""
    if context.invoked_subcommand is None:
        _list(as_json)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@report_errors
def allow(file: Path) -> None:
    """Allow the targets of FILE although a project's author may have written it.

    If the file changes, it must be allowed again.
    """
    from mlflow_backend.targets import targets_file

    path = file.absolute()
    names = targets_file.allow(path).targets
    click.echo(f"{path} is allowed until it changes: {', '.join(names) or 'it has no targets'}")


def _list(as_json: bool) -> None:
    from mlflow_backend.errors import ComputeError
    from mlflow_backend.targets.targets_file import load_files, search_path

    files = load_files(_project_here())
    sources, outage = list(files.sources), None
    try:
        from mlflow_backend.places.kubernetes import shared_targets

        cluster = shared_targets.load()
        sources += [cluster] if cluster else []
    except ComputeError as error:
        outage = str(error)
    rows: dict[str, tuple[str, Target]] = {}
    for source in sources:
        for name, target in source.targets.items():
            rows.setdefault(name, (source.source, target))
    if as_json:
        listed = [
            {"name": name, "source": path, **target.model_dump(exclude_unset=True, mode="json")}
            for name, (path, target) in rows.items()
        ]
        click.echo(json.dumps(listed, indent=2))
    elif not rows:
        click.echo(
            f"No targets. Write a file {search_path()[-1]}; see the README for an example.",
            err=True,
        )
    else:
        _print(rows)
    for line in files.refused:
        click.echo(line, err=True)
    if outage:
        click.echo(f"The cluster's own list could not be read: {outage}", err=True)


def _project_here() -> Path | None:
    """The current directory if it is a project or in a git repository, from which `mlflow run .`
    uses no targets.
    """
    from mlflow_backend.files.git_checkout import work_tree

    here = Path.cwd()
    is_project = (work_tree(here) / ".git").exists() or any(
        path.name.lower() == "mlproject" for path in here.iterdir()
    )
    return here if is_project else None


def _print(rows: "Mapping[str, tuple[str, Target]]") -> None:
    lines = []
    for name, (source, target) in rows.items():
        resources = target.resources.model_dump(exclude_none=True)
        lines.append(
            (
                name,
                target.context or "(current)",
                target.namespace or "(context's)",
                target.image or "(missing)",
                ", ".join(f"{key} {value}" for key, value in resources.items()) or "-",
                source,
            )
        )
    print_table(("TARGET", "CONTEXT", "NAMESPACE", "IMAGE", "RESOURCES", "DEFINED IN"), lines)
