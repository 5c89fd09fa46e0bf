"""The command `mlflow-compute`."""

import json
import sys

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlflow-compute", prog_name="mlflow-compute")
def main() -> None:
    """Run MLflow Projects on this machine or as Kubernetes Jobs: see the targets that `mlflow run --backend compute` can name."""


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def targets(as_json: bool) -> None:
    """List the compute targets that exist, and where each is defined."""
    from mlflow_backend.config.targets_file import load_files, search_path
    from mlflow_backend.errors import ComputeError

    try:
        sources, trouble = list(load_files()), None
        try:
            from mlflow_backend.cluster import shared_targets

            cluster = shared_targets.load()
            sources += [cluster] if cluster else []
        except ComputeError as error:
            trouble = str(error)
    except ComputeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    rows = {}
    for source in sources:
        for name, target in source.targets.items():
            rows.setdefault(name, (source.source, target))
    if as_json:
        listed = [
            {"name": name, "source": source, **target.model_dump(exclude_unset=True, mode="json")}
            for name, (source, target) in rows.items()
        ]
        click.echo(json.dumps(listed, indent=2))
        return
    if not rows:
        click.echo(f"No targets. Write a file {search_path()[0]}; see the README for an example.", err=True)
    else:
        _print_table(rows)
    if trouble:
        click.echo(f"The cluster's own list could not be read: {trouble}", err=True)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def version(as_json: bool) -> None:
    """Show the versions of this package and of what it works with."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    found = {"python": platform.python_version()}
    for package in ("mlflow-compute", "mlflow", "mlflow-skinny", "kubernetes", "uv"):
        try:
            found[package] = version_of(package)
        except PackageNotFoundError:
            continue
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(f"{name} {value}" for name, value in found.items()))


def _print_table(rows) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("TARGET", "CONTEXT", "NAMESPACE", "IMAGE", "RESOURCES", "DEFINED IN", box=None, pad_edge=False)
    for name, (source, target) in rows.items():
        resources = ", ".join(f"{key} {value}" for key, value in target.resources.model_dump(exclude_none=True).items())
        table.add_row(
            name, target.context or "(current)", target.namespace or "(context's)", target.image or "(missing)", resources or "-", source
        )
    Console(width=None if sys.stdout.isatty() else 250).print(table)


if __name__ == "__main__":
    main()
