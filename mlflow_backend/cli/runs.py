"""`mlflow-compute runs|wait|cancel|logs|settle`: commands for runs on a cluster, from any machine
that can reach it.

`runs` and `logs` change nothing. `runs --settle`, `settle`, `wait` and `cancel` settle: they write
the end and the cause of a run whose Job has ended or no longer exists.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import click

from mlflow_backend.cli.output import format_error, print_table, report_errors
from mlflow_backend.plain_text import plain
from mlflow_runner.contract.tags import (
    TAG_CAUSE,
    TAG_CLUSTER,
    TAG_JOB,
    TAG_MESSAGE,
    TAG_NAMESPACE,
    TAG_TARGET,
)

RUN = click.argument("run_id", metavar="RUN")
AT_ONCE = 8
"""The number of runs that are settled concurrently: each takes some calls to the cluster and the
tracking server.
"""


@click.command()
@click.option(
    "--experiment",
    "names",
    multiple=True,
    metavar="NAME",
    help="Only runs of this experiment; can be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="Include finished runs.")
@click.option(
    "--settle",
    "is_settled",
    is_flag=True,
    help="First update unfinished runs from the state of their Jobs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@report_errors
def runs(names: tuple[str, ...], everything: bool, is_settled: bool, as_json: bool) -> None:
    """List the unfinished runs on clusters, with their state in the tracking server."""
    from mlflow_backend.places.kubernetes import runs as runs_of

    listed = list(runs_of.search(runs_of.experiments_of(names), unfinished=not everything))
    failures = 0
    if is_settled:
        listed, failures = _settle_all(listed, ended_too=False)
    if as_json:
        click.echo(json.dumps([_summarize(run) for run in listed], indent=2))
    elif listed:
        columns = ("run_id", "name", "target", "status", "cause", "job", "started")
        print_table(
            [column.upper().replace("_", " ") for column in columns],
            [[_summarize(run)[key] or "-" for key in columns] for run in listed],
        )
    else:
        click.echo(
            "No runs." if everything else "No unfinished runs; --all also shows finished ones.",
            err=True,
        )
    sys.exit(1 if failures else 0)


@click.command()
@RUN
@click.option("--no-logs", is_flag=True, help="Do not show the run's output.")
@report_errors
def wait(run_id: str, no_logs: bool) -> None:
    """Wait for RUN and show its output; exit with 1 if it fails."""
    from mlflow_backend.places.kubernetes import attach
    from mlflow_backend.places.kubernetes import runs as runs_of
    from mlflow_backend.places.kubernetes.run import ClusterRun
    from mlflow_backend.progress import Progress

    run = runs_of.run_of(run_id)
    if not (runs_of.has_ended(run) or attach.settle_now(run)):
        try:
            sys.exit(0 if ClusterRun(attach.attach(run, not no_logs, Progress())).wait() else 1)
        except KeyboardInterrupt:
            click.echo(
                f"The run is still running: mlflow-compute cancel {run_id} stops it.", err=True
            )
            sys.exit(130)
    run = runs_of.run_of(run_id)
    click.echo(_describe_end(run), err=True)
    sys.exit(0 if run.info.status == "FINISHED" else 1)


@click.command()
@RUN
@report_errors
def cancel(run_id: str) -> None:
    """Stop RUN: set its status to KILLED, and delete its Job and pod.

    The Job of a run that has ended or was deleted in MLflow is deleted too.
    """
    from mlflow_backend.places.kubernetes import attach
    from mlflow_backend.places.kubernetes import runs as runs_of
    from mlflow_backend.places.kubernetes.run import ClusterRun
    from mlflow_backend.progress import Progress

    run = runs_of.run_of(run_id)
    if not runs_of.has_ended(run) or attach.has_active_job(run):
        ClusterRun(attach.attach(run, False, Progress())).cancel()
        run = runs_of.run_of(run_id)
    click.echo(_describe_end(run))


@click.command()
@RUN
@click.option("-f", "--follow", is_flag=True, help="Show new output until the run ends.")
@report_errors
def logs(run_id: str, follow: bool) -> None:
    """Show the output of RUN, even if its pod no longer exists."""
    from mlflow_backend.places.kubernetes import attach
    from mlflow_backend.places.kubernetes import follow as following
    from mlflow_backend.places.kubernetes import runs as runs_of

    run = runs_of.run_of(run_id)
    if follow and not runs_of.has_ended(run):
        following.follow(attach.cluster_of(run), runs_of.record_of(run), _write)
        return
    is_empty = True
    for part in runs_of.log_parts(run_id):
        _write(part)
        is_empty = False
    if is_empty:
        click.echo(
            f"run {run_id}: has no stored output yet; --follow shows it as it is written",
            err=True,
        )


@click.command()
@click.argument("run_ids", nargs=-1, metavar="[RUN]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@report_errors
def settle(run_ids: tuple[str, ...], as_json: bool) -> None:
    """Update runs from the state of their Jobs: the given ones, or all unfinished runs that name
    their cluster.
    """
    from mlflow_backend.places.kubernetes import runs as runs_of

    selected = [runs_of.run_of(run_id) for run_id in run_ids] or list(
        runs_of.search(None, unfinished=True, with_tag=TAG_CLUSTER)
    )
    settled, failures = _settle_all(selected, ended_too=True, named=bool(run_ids))
    changed = [
        after
        for before, after in zip(selected, settled, strict=True)
        if after.info.status != before.info.status
    ]
    if as_json:
        click.echo(json.dumps([_summarize(run) for run in changed], indent=2))
    else:
        for run in changed:
            click.echo(f"{run.info.run_id} {_describe_end(run)}")
        click.echo(f"{len(selected)} checked, {len(changed)} settled", err=True)
    sys.exit(1 if failures else 0)


def _settle_all(
    selected: Sequence[Any], ended_too: bool, named: bool = False
) -> tuple[list[Any], int]:
    """The runs after settling, and the number of failures; each reason is printed once.

    With `ended_too` runs that have ended are settled too, as their Jobs may still hold resources. A
    run of a cluster that cannot be reached from here is skipped, which is a failure only if the
    user named it (`named`).
    """
    from mlflow_backend.errors import ComputeError, UnknownCluster

    def settle_one(run: Any) -> tuple[Any, str, str]:
        try:
            return _settle(run, ended_too), "", ""
        except ComputeError as error:
            is_skipped = isinstance(error, UnknownCluster) and not named
            return run, "skipped" if is_skipped else "not settled", format_error(error)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(settle_one, selected))
    reasons = Counter((outcome, reason) for _, outcome, reason in outcomes if reason)
    for (outcome, reason), count in reasons.items():
        click.echo(f"{count} {outcome}: {reason}", err=True)
    return [run for run, _, _ in outcomes], sum(what == "not settled" for _, what, _ in outcomes)


def _settle(run: Any, ended_too: bool) -> Any:
    """The run after settling."""
    from mlflow_backend.places.kubernetes import attach
    from mlflow_backend.places.kubernetes import runs as runs_of

    if (runs_of.has_ended(run) and not ended_too) or not attach.settle_now(run):
        return run
    return runs_of.run_of(run.info.run_id)


def _write(output: bytes) -> None:
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def _describe_end(run: Any) -> str:
    tags = run.data.tags
    if run.info.lifecycle_stage == "deleted":
        return f"deleted in MLflow, its Job {plain(tags[TAG_JOB])} is deleted too"
    reason = f", {tags[TAG_CAUSE]}: {tags.get(TAG_MESSAGE, '')}" if TAG_CAUSE in tags else ""
    return plain(f"{run.info.status}{reason}")


def _summarize(run: Any) -> dict[str, Any]:
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
