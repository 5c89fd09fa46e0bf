"""`mlflow-compute runs|wait|cancel|logs|settle`: runs that were sent to a cluster, from any machine
that can reach it.

`runs` and `logs` show and change nothing. `runs --settle`, `settle`, `wait` and `cancel` settle: a
run whose Job has ended or is gone gets its end and its cause.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import click

from mlflow_backend.cli.output import print_table, readable, report_errors
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
"""Runs that are settled at a time: each costs some round trips to the cluster and to the tracking
server.
"""


@click.command()
@click.option(
    "--experiment",
    "names",
    multiple=True,
    metavar="NAME",
    help="Only runs of this experiment; may be given several times.",
)
@click.option("--all", "everything", is_flag=True, help="Finished runs too.")
@click.option(
    "--settle",
    "is_settled",
    is_flag=True,
    help="First bring those that have not ended in line with their Jobs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@report_errors
def runs(names: tuple[str, ...], everything: bool, is_settled: bool, as_json: bool) -> None:
    """List the runs that were sent to a cluster and have not ended, as the tracking server knows
    them.
    """
    from mlflow_backend.places.kubernetes import runs as runs_of

    found = list(runs_of.search(runs_of.experiments_of(names), unfinished=not everything))
    failures = 0
    if is_settled:
        found, failures = _settle_all(found, ended_too=False)
    if as_json:
        click.echo(json.dumps([_summary(run) for run in found], indent=2))
    elif found:
        columns = ("run_id", "name", "target", "status", "cause", "job", "started")
        print_table(
            [column.upper().replace("_", " ") for column in columns],
            [[_summary(run)[key] or "-" for key in columns] for run in found],
        )
    else:
        click.echo(
            "No runs." if everything else "No unfinished runs; --all shows the others too.",
            err=True,
        )
    sys.exit(1 if failures else 0)


@click.command()
@RUN
@click.option("--no-logs", is_flag=True, help="Do not show the run's output.")
@report_errors
def wait(run_id: str, no_logs: bool) -> None:
    """Wait for RUN and show its output; exit with 1 when it fails."""
    from mlflow_backend.places.kubernetes import attach
    from mlflow_backend.places.kubernetes import runs as runs_of
    from mlflow_backend.places.kubernetes.run import ClusterRun
    from mlflow_backend.progress import Progress

    run = runs_of.run_of(run_id)
    if not (runs_of.has_ended(run) or attach.settle_now(run)):
        try:
            sys.exit(0 if ClusterRun(attach.attach(run, not no_logs, Progress())).wait() else 1)
        except KeyboardInterrupt:
            click.echo(f"The run goes on: mlflow-compute cancel {run_id} stops it.", err=True)
            sys.exit(130)
    run = runs_of.run_of(run_id)
    click.echo(_ending(run), err=True)
    sys.exit(0 if run.info.status == "FINISHED" else 1)


@click.command()
@RUN
@report_errors
def cancel(run_id: str) -> None:
    """Stop RUN: it becomes KILLED, and its Job and pod are deleted.

    The Job of a run that has ended or was deleted in MLflow goes too.
    """
    from mlflow_backend.places.kubernetes import attach
    from mlflow_backend.places.kubernetes import runs as runs_of
    from mlflow_backend.places.kubernetes.run import ClusterRun
    from mlflow_backend.progress import Progress

    run = runs_of.run_of(run_id)
    if not runs_of.has_ended(run) or attach.has_active_job(run):
        ClusterRun(attach.attach(run, False, Progress())).cancel()
        run = runs_of.run_of(run_id)
    click.echo(_ending(run))


@click.command()
@RUN
@click.option(
    "-f", "--follow", is_flag=True, help="Go on showing what the run prints until it ends."
)
@report_errors
def logs(run_id: str, follow: bool) -> None:
    """Show what RUN printed, also after its pod is gone."""
    from mlflow_backend.places.kubernetes import attach
    from mlflow_backend.places.kubernetes import follow as following
    from mlflow_backend.places.kubernetes import runs as runs_of

    run = runs_of.run_of(run_id)
    if follow and not runs_of.has_ended(run):
        following.follow(attach.cluster_of(run), runs_of.known(run), _write)
        return
    parts = 0
    for parts, part in enumerate(runs_of.log_parts(run_id), 1):  # noqa: B007
        _write(part)
    if not parts:
        click.echo(
            f"run {run_id}: nothing is stored of its output yet; --follow shows it as it comes",
            err=True,
        )


@click.command()
@click.argument("run_ids", nargs=-1, metavar="[RUN]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@report_errors
def settle(run_ids: tuple[str, ...], as_json: bool) -> None:
    """Bring runs in line with their Jobs: those named, or all that have not ended and say which
    cluster they were sent to.
    """
    from mlflow_backend.places.kubernetes import runs as runs_of

    wanted = [runs_of.run_of(run_id) for run_id in run_ids] or list(
        runs_of.search(None, unfinished=True, with_tag=TAG_CLUSTER)
    )
    found, failures = _settle_all(wanted, ended_too=True, asked_for=bool(run_ids))
    changed = [
        after
        for before, after in zip(wanted, found, strict=True)
        if after.info.status != before.info.status
    ]
    if as_json:
        click.echo(json.dumps([_summary(run) for run in changed], indent=2))
    else:
        for run in changed:
            click.echo(f"{run.info.run_id} {_ending(run)}")
        click.echo(f"{len(wanted)} looked at, {len(changed)} settled", err=True)
    sys.exit(1 if failures else 0)


def _settle_all(
    found: Sequence[Any], ended_too: bool, asked_for: bool = False
) -> tuple[list[Any], int]:
    """The runs as they are after settling, and how many could not be settled; why is said once for
    each reason.

    `ended_too`: a run that has its end may have left a Job that holds something. A run of a cluster
    that is not reached from here is left alone, which is a failure only where the user named it
    (`asked_for`).
    """
    from mlflow_backend.errors import ComputeError, UnknownCluster

    def settle_one(run: Any) -> tuple[Any, str, str]:
        try:
            return _settled(run, ended_too), "", ""
        except ComputeError as error:
            elsewhere = isinstance(error, UnknownCluster) and not asked_for
            return run, "left alone" if elsewhere else "not settled", readable(error)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(settle_one, found))
    reasons = Counter((what, why) for _, what, why in outcomes if why)
    for (what, why), count in reasons.items():
        click.echo(f"{count} {what}: {why}", err=True)
    return [run for run, _, _ in outcomes], sum(what == "not settled" for _, what, _ in outcomes)


def _settled(run: Any, ended_too: bool) -> Any:
    from mlflow_backend.places.kubernetes import attach
    from mlflow_backend.places.kubernetes import runs as runs_of

    if (runs_of.has_ended(run) and not ended_too) or not attach.settle_now(run):
        return run
    return runs_of.run_of(run.info.run_id)


def _write(output: bytes) -> None:
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def _ending(run: Any) -> str:
    tags = run.data.tags
    if run.info.lifecycle_stage == "deleted":
        return f"deleted in MLflow, its Job {plain(tags[TAG_JOB])} is deleted too"
    why = f", {tags[TAG_CAUSE]}: {tags.get(TAG_MESSAGE, '')}" if TAG_CAUSE in tags else ""
    return plain(f"{run.info.status}{why}")


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
