"""The backend `compute` as MLflow loads it (entry point group `mlflow.project_backend`).

Apart from MLflow's base class, everything is imported when a run is submitted, so that
`mlflow run --help` stays fast.
"""

import gc
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow.projects.backend.abstract_backend import AbstractBackend

if TYPE_CHECKING:
    import click
    from mlflow.projects.submitted_run import SubmittedRun

    from mlflow_backend.request.backend_config import BackendConfig
    from mlflow_backend.request.project import Project


class ComputeBackend(AbstractBackend):  # type: ignore[misc]  # MLflow has no types
    """Runs a project on this machine, or on the target that `COMPUTE` names."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: Mapping[str, Any] | None,
        version: str | None,
        backend_config: Mapping[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> "SubmittedRun":
        """Start the run and return its SubmittedRun without waiting.

        The arguments are those of `AbstractBackend.run`. Raises MLflow's ExecutionException for
        every error that the user can fix. The command `mlflow run`, which does not wait by itself,
        waits when it closes.
        """
        from mlflow_backend import debug, scratch
        from mlflow_backend.errors import raise_as_mlflow
        from mlflow_backend.request import command_line
        from mlflow_backend.request import project as projects
        from mlflow_backend.request.backend_config import parse
        from mlflow_runner.contract import tracking_variables

        debug.show_if_asked()
        tracking_variables.strip(os.environ)  # MLflow's client fails on a newline and prints it
        command = command_line.mlflow_run()
        if command:
            scratch.end_in_order()
        with raise_as_mlflow():
            config = parse(backend_config)
            project = projects.load(project_uri, version, entry_point, params)
            try:
                if config.DRY_RUN:
                    _show_dry_run(config, project, experiment_id, tracking_uri, bool(command))
                run = _submit(config, project, experiment_id, tracking_uri)
            except BaseException:
                project.discard()
                raise
        if config.STREAM_OUTPUT and command:
            _wait_at_the_end(command, run)
        return run


def _submit(
    config: "BackendConfig", project: "Project", experiment_id: str, tracking_uri: str
) -> "SubmittedRun":
    from mlflow_backend.progress import Progress

    if config.is_local:
        from mlflow_backend.places.local.submit import submit
    else:
        from mlflow_backend.places.kubernetes.submit import submit
    return submit(config, project, experiment_id, tracking_uri, Progress())


def _show_dry_run(
    config: "BackendConfig",
    project: "Project",
    experiment_id: str,
    tracking_uri: str,
    is_command: bool,
) -> NoReturn:
    """Print what a submit would create.

    MLflow expects a run from every backend. A dry run has none: the command exits with 0, and a
    caller in Python gets an ExecutionException.
    """
    from mlflow.exceptions import ExecutionException

    from mlflow_backend.progress import Progress

    if config.is_local:
        from mlflow_backend.places.local.dry_run import dry_run
    else:
        from mlflow_backend.places.kubernetes.dry_run import dry_run
    progress = Progress()
    progress.output(dry_run(config, project, experiment_id, tracking_uri, progress))
    if is_command:
        sys.exit(0)
    raise ExecutionException("DRY_RUN: the run would be accepted; nothing was created")


def _cancel(run: "SubmittedRun") -> None:
    """Cancel the run after Ctrl-C; a second Ctrl-C exits immediately."""
    from mlflow.exceptions import ExecutionException

    from mlflow_backend.progress import Progress

    Progress().say("cancelling the run; press Ctrl-C again to exit immediately")
    try:
        run.cancel()
    except ExecutionException as error:
        Progress().say(str(error))
    except KeyboardInterrupt:
        Progress().say(f"the run may still be running: mlflow-compute cancel {run.run_id} stops it")


def _wait_at_the_end(command: "click.Context", run: "SubmittedRun") -> None:
    """Wait once MLflow has set the run's name and tags, and exit with the run's result."""
    from mlflow.exceptions import ExecutionException

    from mlflow_backend.progress import Progress

    def wait() -> None:
        try:
            if not run.wait():
                sys.exit(1)
        except KeyboardInterrupt:
            _cancel(run)
            sys.exit(130)
        except ExecutionException as error:
            Progress().say(str(error))
            sys.exit(1)
        finally:
            gc.freeze()  # the process ends here; collecting MLflow's imports would take 0.4 s

    command.call_on_close(wait)
