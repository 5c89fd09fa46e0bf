"""The backend `compute` as MLflow loads it (entry point group `mlflow.project_backend`).

Everything but MLflow's own base class is imported when a run is submitted:
`mlflow run --help` does not pay for it.
"""

import gc
import os
import sys
from typing import NoReturn

from mlflow.projects.backend.abstract_backend import AbstractBackend


class ComputeBackend(AbstractBackend):
    """Runs a project on this machine, or where `COMPUTE` of the backend_config says."""

    def run(
        self, project_uri, entry_point, params, version, backend_config, tracking_uri, experiment_id
    ):
        """Start the run and return its SubmittedRun without waiting.

        The arguments are those of `AbstractBackend.run`. Raises MLflow's ExecutionException for
        everything a user can correct. Under the command `mlflow run`, which would return at once,
        the wait is done at its end.
        """
        from mlflow_backend import debug, scratch
        from mlflow_backend.errors import as_mlflow_does
        from mlflow_backend.request import command_line
        from mlflow_backend.request import project as projects
        from mlflow_backend.request.backend_config import parse
        from mlflow_runner.contract import tracking_variables

        debug.show_if_asked()
        tracking_variables.strip(os.environ)  # MLflow's client fails on one and prints it
        command = command_line.mlflow_run()
        if command:
            scratch.end_in_order()
        with as_mlflow_does():
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


def _submit(config, project, experiment_id, tracking_uri):
    """The SubmittedRun."""
    from mlflow_backend.progress import Progress

    if config.is_local:
        from mlflow_backend.places.local.submit import submit
    else:
        from mlflow_backend.places.kubernetes.submit import submit
    return submit(config, project, experiment_id, tracking_uri, Progress())


def _show_dry_run(config, project, experiment_id, tracking_uri, is_command) -> NoReturn:
    """Print what would be created. MLflow expects a run of every backend: as there is none, the
    command ends here with 0, and a caller in Python gets an ExecutionException.
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


def _cancel(run) -> None:
    """After Ctrl-C: cancel the run; a second Ctrl-C leaves at once and says what is left to do."""
    from mlflow.exceptions import ExecutionException

    from mlflow_backend.progress import Progress

    Progress().say("cancelling the run; Ctrl-C again leaves at once")
    try:
        run.cancel()
    except ExecutionException as error:
        Progress().say(str(error))
    except KeyboardInterrupt:
        Progress().say(f"the run may go on: mlflow-compute cancel {run.run_id} stops it")


def _wait_at_the_end(command, run) -> None:
    """Wait after MLflow has set the run's name and tags, and exit as the run did."""
    from mlflow.exceptions import ExecutionException

    from mlflow_backend.progress import Progress

    def wait():
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
            gc.freeze()  # the process ends here: tearing down all that MLflow imported took 0.4 s

    command.call_on_close(wait)
