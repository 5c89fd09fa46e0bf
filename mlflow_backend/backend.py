"""The backend `compute` as MLflow loads it (entry point group `mlflow.project_backend`).

Everything but MLflow's own base class is imported when a run is submitted:
`mlflow run --help` does not pay for it.
"""

import gc
import os
import sys

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
        from mlflow_backend import scratch
        from mlflow_backend.errors import as_mlflow_does
        from mlflow_backend.request import command_line
        from mlflow_runner.contract import tracking_variables

        tracking_variables.strip(os.environ)  # MLflow's client fails on one and prints it
        command = command_line.mlflow_run()
        if command:
            scratch.end_in_order()
        with as_mlflow_does():
            run, streams = _submit(
                project_uri,
                entry_point,
                params,
                version,
                backend_config,
                tracking_uri,
                experiment_id,
            )
        if streams and command:
            _wait_at_the_end(command, run)
        return run


def _submit(project_uri, entry_point, params, version, backend_config, tracking_uri, experiment_id):
    """The SubmittedRun, and whether its output is to be shown."""
    from mlflow_backend.progress import Progress
    from mlflow_backend.request import project as projects
    from mlflow_backend.request.backend_config import parse

    config = parse(backend_config)
    project = projects.load(project_uri, version, entry_point, params)
    if config.is_local:
        from mlflow_backend.places.local.submit import submit
    else:
        from mlflow_backend.places.kubernetes.submit import submit
    try:
        return submit(
            config, project, experiment_id, tracking_uri, Progress()
        ), config.STREAM_OUTPUT
    except BaseException:
        project.discard()
        raise


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
