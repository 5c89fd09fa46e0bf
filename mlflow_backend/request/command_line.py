"""The command line that this process runs, where that is `mlflow run`: MLflow does not pass on all
of its options.
"""

import click


def mlflow_run() -> click.Context | None:
    """click's context of the command `mlflow run`; None in any other program, also one whose own
    command is named `run`.
    """
    context = click.get_current_context(silent=True)
    return (
        context
        if context and context.info_name == "run" and "backend_config" in context.params
        else None
    )


def given_run_id(from_config: str | None) -> str | None:
    """The run that the user asked to continue, by `--run-id` or `RUN_ID` of the backend_config.

    MLFLOW_RUN_ID names the run that this process belongs to: the parent of what it starts, never a
    run to continue.
    """
    context = mlflow_run()
    return from_config or (context.params.get("run_id") if context else None)
