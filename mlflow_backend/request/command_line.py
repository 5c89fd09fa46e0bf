"""The command line of `mlflow run`, as MLflow does not pass all of its options to a backend."""

import click


def mlflow_run() -> click.Context | None:
    """The click context of the command `mlflow run`; None in another program, even if its own
    command is named `run`.
    """
    context = click.get_current_context(silent=True)
    if context and context.info_name == "run" and "backend_config" in context.params:
        return context
    return None


def given_run_id(from_config: str | None) -> str | None:
    """The run that the user wants to continue: `RUN_ID` of the backend_config, else `--run-id`.

    MLFLOW_RUN_ID does not count: it names the run that this process belongs to, the parent of the
    new one.
    """
    context = mlflow_run()
    return from_config or (context.params.get("run_id") if context else None)
