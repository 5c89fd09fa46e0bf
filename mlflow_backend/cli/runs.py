"""`mlflow-compute runs|wait|cancel|logs|settle`: runs that were sent to a cluster, from any machine that can reach it.

Each of these commands settles what it looks at: a run whose Job has ended or is gone gets its end and its cause.
"""

import json
import sys
from datetime import datetime
from typing import Any

import click

from mlflow_backend.cli.output import mended_by_user, print_table
from mlflow_runner.submission import TAG_CAUSE, TAG_JOB, TAG_MESSAGE, TAG_NAMESPACE, TAG_TARGET

RUN = click.argument("run_id", metavar="RUN")


@click.command()
@click.option("--experiment", "names", multiple=True, metavar="NAME", help="Only runs of this experiment; may be given several times.")
@click.option("--all", "everything", is_flag=True, help="Finished runs too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@mended_by_user
def runs(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """List the runs that were sent to a cluster and have not ended."""
    from mlflow_backend.cluster import runs as runs_of

    found = []
    for run in runs_of.search(_experiments(names), unfinished=not everything):
        found.append(_settled(run)[0])
    if as_json:
        click.echo(json.dumps([_summary(run) for run in found], indent=2))
        return
    if not found:
        click.echo("No runs." if everything else "No unfinished runs; --all shows the others too.", err=True)
        return
    columns = ("run_id", "name", "target", "status", "cause", "job", "started")
    print_table([column.upper().replace("_", " ") for column in columns], [[_summary(run)[key] or "-" for key in columns] for run in found])


@click.command()
@RUN
@click.option("--no-logs", is_flag=True, help="Do not show the run's output.")
@mended_by_user
def wait(run_id: str, no_logs: bool) -> None:
    """Wait for RUN and show its output; exit with 1 when it fails."""
    from mlflow_backend.cluster import attach
    from mlflow_backend.cluster import runs as runs_of
    from mlflow_backend.cluster.run import ClusterRun
    from mlflow_backend.progress import Progress

    run, ended = _settled(runs_of.run_of(run_id))
    if not ended:
        try:
            sys.exit(0 if ClusterRun(attach.attach(run, not no_logs, Progress())).wait() else 1)
        except KeyboardInterrupt:
            click.echo(f"The run goes on: mlflow-compute cancel {run_id} stops it.", err=True)
            sys.exit(130)
    click.echo(_ending(run), err=True)
    sys.exit(0 if run.info.status == "FINISHED" else 1)


@click.command()
@RUN
@mended_by_user
def cancel(run_id: str) -> None:
    """Stop RUN: it is KILLED, its Job deleted and its pod gone."""
    from mlflow_backend.cluster import attach
    from mlflow_backend.cluster import runs as runs_of
    from mlflow_backend.cluster.run import ClusterRun
    from mlflow_backend.progress import Progress

    run, ended = _settled(runs_of.run_of(run_id))
    if not ended:
        ClusterRun(attach.attach(run, False, Progress())).cancel()
        run = runs_of.run_of(run_id)
    click.echo(_ending(run))


@click.command()
@RUN
@click.option("-f", "--follow", is_flag=True, help="Go on showing what the run prints until it ends.")
@mended_by_user
def logs(run_id: str, follow: bool) -> None:
    """Show what RUN printed, also after its pod is gone."""
    from mlflow_backend.cluster import attach
    from mlflow_backend.cluster import runs as runs_of
    from mlflow_backend.cluster.run import ClusterRun
    from mlflow_backend.progress import Progress

    run, ended = _settled(runs_of.run_of(run_id))
    if follow and not ended:
        ClusterRun(attach.attach(run, True, Progress())).wait()
        return
    for part in _log_parts(run_id):
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


@click.command()
@click.argument("run_ids", nargs=-1, metavar="[RUN]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@mended_by_user
def settle(run_ids: tuple[str, ...], as_json: bool) -> None:
    """Bring runs in line with their Jobs: those named, or all that have not ended."""
    from mlflow_backend.cluster import runs as runs_of

    wanted = [runs_of.run_of(run_id) for run_id in run_ids] or list(runs_of.search(None, unfinished=True))
    found = [_settled(run)[0] for run in wanted]
    changed = [after for before, after in zip(wanted, found, strict=True) if after.info.status != before.info.status]
    if as_json:
        click.echo(json.dumps([_summary(run) for run in changed], indent=2))
        return
    for run in changed:
        click.echo(f"{run.info.run_id} {_ending(run)}")
    click.echo(f"{len(wanted)} looked at, {len(changed)} settled", err=True)


def _settled(run: Any) -> tuple[Any, bool]:
    """The run as it is after settling, and whether it has ended. A cluster that cannot be reached is named, and changes nothing."""
    from mlflow_backend.cluster import attach
    from mlflow_backend.cluster import runs as runs_of
    from mlflow_backend.cluster.settle import has_ended
    from mlflow_backend.errors import ClusterError

    if has_ended(runs_of.known(run)):
        return run, True
    try:
        ended = attach.settle_now(run)
    except ClusterError as error:
        click.echo(f"run {run.info.run_id}: {error}", err=True)
        return run, False
    return (runs_of.run_of(run.info.run_id) if ended else run), ended


def _experiments(names: tuple[str, ...]) -> list[str] | None:
    from mlflow.tracking import MlflowClient

    from mlflow_backend.errors import TrackingError, hint

    client, found = MlflowClient(), []
    for name in names:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            known = [item.name for item in client.search_experiments()]
            raise TrackingError(f"--experiment {name}: there is none of this name; {hint(name, known)}")
        found.append(experiment.experiment_id)
    return found or None


def _log_parts(run_id: str):
    from pathlib import Path

    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    for item in sorted(client.list_artifacts(run_id, "logs"), key=lambda item: item.path):
        yield Path(client.download_artifacts(run_id, item.path)).read_bytes()


def _ending(run: Any) -> str:
    tags = run.data.tags
    why = f", {tags[TAG_CAUSE]}: {tags.get(TAG_MESSAGE, '')}" if TAG_CAUSE in tags else ""
    return f"{run.info.status}{why}"


def _summary(run: Any) -> dict[str, Any]:
    tags = run.data.tags
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "experiment_id": run.info.experiment_id,
        "target": tags.get(TAG_TARGET),
        "status": run.info.status,
        "cause": tags.get(TAG_CAUSE),
        "message": tags.get(TAG_MESSAGE),
        "job": tags.get(TAG_JOB),
        "namespace": tags.get(TAG_NAMESPACE),
        "started": datetime.fromtimestamp(run.info.start_time / 1000).isoformat(timespec="seconds"),
    }
