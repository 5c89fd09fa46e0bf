"""`mlflow-compute controller`, the command of the Deployment in k8s/controller."""

import os

import click

from mlflow_backend.cli.output import report_errors

NAMESPACES = "MLFLOW_COMPUTE_NAMESPACES"


@click.command()
@click.option(
    "--namespace", "names", multiple=True, metavar="NAME",
    help=f"A namespace whose runs are settled; can be repeated. Default: {NAMESPACES} "
         "(comma-separated), else the controller's own.",
)  # fmt: skip
@click.option("--port", default=8080, show_default=True, help="For /metrics, /healthz and /readyz.")
@report_errors
def command(names: tuple[str, ...], port: int) -> None:
    """Settle the runs of one or more namespaces that no client waits for. The command of a
    Deployment in the cluster (k8s/controller).

    Its Lease is in its own namespace: the pod's, or that of the current context.
    MLFLOW_TRACKING_URI and MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN set the tracking server
    and the login.
    """
    from mlflow_backend.controller.serve import log_to_stderr, serve
    from mlflow_backend.places.kubernetes.client.connect import connect

    log_to_stderr()
    own = connect()
    listed = names or os.environ.get(NAMESPACES, "").split(",")
    namespaces = list(dict.fromkeys(name.strip() for name in listed if name.strip())) or [
        own.namespace
    ]
    clusters = [connect(None, namespace) for namespace in namespaces]
    serve(own, clusters, os.environ.get("MLFLOW_TRACKING_URI", ""), port)
