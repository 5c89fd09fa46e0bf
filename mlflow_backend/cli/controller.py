"""`mlflow-compute controller`: what the Deployment in k8s/controller runs."""

import os

import click

from mlflow_backend.cli.output import mended_by_user


@click.command()
@click.option("--namespace", metavar="NAME", help="Where runs are settled; default: the one it runs in, or of the current context.")
@click.option("--port", default=8080, show_default=True, help="For /metrics, /healthz and /readyz.")
@mended_by_user
def command(namespace: str | None, port: int) -> None:
    """Settle the runs of a namespace when nobody waits for them: made to run in the cluster (k8s/controller).

    MLFLOW_TRACKING_URI and MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN say where runs are.
    """
    from mlflow_backend.cluster.api import connect
    from mlflow_backend.controller.serve import log_to_stderr, serve

    log_to_stderr()
    serve(connect(None, namespace), os.environ.get("MLFLOW_TRACKING_URI"), port)
