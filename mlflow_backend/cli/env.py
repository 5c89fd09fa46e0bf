"""`mlflow-compute env`: the locks of projects, and the cached environments of this machine."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_backend.cli.output import print_table, report_errors

if TYPE_CHECKING:
    from mlflow_backend.environment.locks import CachedLock
    from mlflow_runner.environment.cache import Entry

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
TARGET = click.option(
    "--target", metavar="NAME", help="Lock for this compute target. Default: this machine."
)
PROJECT = click.argument("project", default=".", metavar="[PROJECT]")


@click.group("env")
def command() -> None:
    """Lock environments, and list or remove the cached ones."""


@command.command()
@PROJECT
@TARGET
@click.option("--refresh", is_flag=True, help="Solve again even if the files have not changed.")
@click.option(
    "--allow-builds",
    is_flag=True,
    help="Build packages without a wheel on this machine to read their dependencies.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Copy the lock files into this folder.",
)
@AS_JSON
@report_errors
def lock(
    project: str,
    target: str | None,
    refresh: bool,
    allow_builds: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Solve the environment of PROJECT (a folder or a URI) and cache the lock for later runs."""
    cached = _obtain_lock(project, target, refresh, allow_builds)
    from mlflow_backend.environment import locks

    files = list(cached.files.values())
    if output:
        output.mkdir(parents=True, exist_ok=True)
        files = [Path(shutil.copy(file, output)) for file in files]
    if as_json:
        fields = cached.environment._asdict() | {
            "lock_dir": str(output or cached.folder),
            "files": [str(file) for file in files],
        }
        click.echo(json.dumps(fields, indent=2))
        return
    click.echo(f"environment {cached.environment.key}")
    click.echo(f"{locks.describe(cached)} for {cached.environment.platform}")
    for file in files:
        click.echo(str(file))


@command.command()
@PROJECT
@TARGET
@click.option("--run", "run_id", metavar="RUN_ID", help="Show the environment of this run.")
@AS_JSON
@report_errors
def show(project: str, target: str | None, run_id: str | None, as_json: bool) -> None:
    """List the packages of the environment of PROJECT, or of a run."""
    from mlflow_backend.environment.lock_files import contents

    files = _files_of_run(run_id) if run_id else _obtain_lock(project, target).files
    packages = contents.packages(files)
    if as_json:
        click.echo(json.dumps([package._asdict() for package in packages], indent=2))
    else:
        print_table(("PACKAGE", "VERSION", "FROM", "FILE"), packages)


@command.command("list")
@AS_JSON
def list_(as_json: bool) -> None:
    """List the cached environments of this machine, the most recently used first."""
    from mlflow_backend.environment.locks import cache_dir
    from mlflow_runner.environment import cache

    entries = cache.list_entries(str(cache_dir()))
    if as_json:
        click.echo(json.dumps([entry._asdict() for entry in entries], indent=2))
        return
    if not entries:
        click.echo(f"No environments in {cache_dir()}.", err=True)
        return
    rows = []
    for entry in entries:
        used = datetime.fromtimestamp(entry.used_at).strftime("%Y-%m-%d %H:%M")
        rows.append(
            (
                entry.key[:12],
                entry.platform,
                f"{entry.size_bytes / 1e6:.0f} MB",
                used,
                "in use" if entry.in_use else entry.state,
            )
        )
    print_table(("ENVIRONMENT", "PLATFORM", "SIZE", "LAST USED", "STATE"), rows)
    click.echo(
        f"{cache.usage_bytes(str(cache_dir())) / 1e6:.0f} MB in {cache_dir()}, including packages "
        "and locks"
    )


@command.command()
@click.argument("keys", nargs=-1, metavar="[ENVIRONMENT]...")
@click.option(
    "--size",
    metavar="SIZE",
    help="Remove the least recently used until at most SIZE remains, such as 5G or 500M.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Remove all environments, packages and locks.",
)
@report_errors
def clean(keys: tuple[str, ...], size: str | None, everything: bool) -> None:
    """Remove cached environments by the start of their names, by size, or all.

    Environments and packages that a run uses are not removed.
    """
    from mlflow_backend.environment.locks import cache_dir
    from mlflow_runner.environment import cache

    if bool(keys) + bool(size) + everything != 1:
        raise click.UsageError(
            "name environments (see mlflow-compute env list), or pass --size or --all"
        )
    if keys:
        _remove(keys, cache.list_entries(str(cache_dir()), sizes=False))
        return
    removed, freed = cache.clean(str(cache_dir()), _parse_size(size) if size else 0)
    if everything:
        shutil.rmtree(cache_dir() / "locks", ignore_errors=True)
    click.echo(f"{removed} environment{'s' * (removed != 1)} removed, {freed / 1e6:.0f} MB freed")


def _remove(keys: Sequence[str], entries: "Sequence[Entry]") -> None:
    from mlflow_backend.errors import ConfigError
    from mlflow_runner.environment import cache

    for key in keys:
        matching = [entry for entry in entries if entry.key.startswith(key)]
        if not matching:
            raise ConfigError(
                f"there is no cached environment {key}",
                code="NotFound",
                hint="see mlflow-compute env list",
            )
        for entry in matching:
            if not cache.discard(entry):
                raise ConfigError(
                    f"environment {entry.key[:12]} is in use by a run",
                    code="InUse",
                    hint="wait for the run, or cancel it",
                )
            click.echo(f"environment {entry.key[:12]} removed")


def _parse_size(size: str) -> int:
    """The size in bytes. Raises ConfigError."""
    from mlflow_backend.errors import ConfigError

    units = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    number, unit = size.rstrip("KMGTkmgtBb"), size.rstrip("Bb")[-1:].upper()
    try:
        return int(float(number) * units[unit if unit.isalpha() else ""])
    except (ValueError, KeyError):
        raise ConfigError(
            f"--size {size}: is not a size", hint="write a number with K, M, G or T, such as 5G"
        ) from None


def _obtain_lock(
    project: str, target: str | None, refresh: bool = False, allow_builds: bool = False
) -> "CachedLock":
    """The lock of the project for the target, or for this machine. Raises ComputeError."""
    from mlflow_backend.environment import locks, permissions, platforms
    from mlflow_backend.errors import ProjectError
    from mlflow_backend.progress import Progress
    from mlflow_backend.request import project as projects
    from mlflow_backend.targets import lookup

    progress = Progress()
    fetched = projects.fetch(project)
    try:
        platform, allowed = platforms.of_this_machine(), permissions.HERE
        if target:
            from mlflow_backend.places.kubernetes import shared_targets

            fields = lookup.find(
                target, {}, shared_targets.load, fetched.work_dir, progress.say
            ).target
            platform, allowed = platforms.of_target(fields), permissions.of_target(fields)
        allowed = dataclasses.replace(allowed, builds=allowed.builds or allow_builds)
        cached = locks.obtain(
            fetched.work_dir, fetched.environment_files, platform, allowed, progress, refresh
        )
    finally:
        fetched.discard()
    if cached is None:
        raise ProjectError(
            f"{project}: lists no environment (conda.yaml, python_env.yaml, or a lock)",
            code="NotFound",
        )
    return cached


def _files_of_run(run_id: str) -> dict[str, Path]:
    from mlflow.artifacts import download_artifacts

    from mlflow_backend.errors import TrackingError
    from mlflow_backend.tracking.answers import one_line

    what = f"run {run_id}: has no lock of an environment"
    try:
        with one_line(what):
            folder = Path(download_artifacts(run_id=run_id, artifact_path="environment"))
    except OSError as error:
        raise TrackingError(f"{what}: {error}", code="NotFound") from None
    return {path.name: path for path in folder.iterdir()}
