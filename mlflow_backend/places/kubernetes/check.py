"""The checks of a plan for a cluster: the verdict of the API server, and whether pods reach what
they need. Nothing is created.
"""

from collections.abc import Iterator
from typing import Any

from mlflow_backend.places.kubernetes.objects import manifest
from mlflow_backend.places.kubernetes.prepare import Prepared
from mlflow_backend.plan import findings
from mlflow_backend.plan.findings import Finding
from mlflow_backend.plan.plan import UNKNOWN_RUN
from mlflow_backend.tracking import runs as mlflow_runs


def check(prepared: Prepared) -> list[Finding]:
    """All that is wrong with the plan, as far as it can be seen before anything is created."""

    def api_server() -> Iterator[Finding]:
        prepared.cluster.check(objects(prepared))
        yield from ()

    def identity() -> Iterator[Finding]:
        prepared.cluster.identity()  # read now, as its answer is kept
        yield from ()

    def artifacts() -> Iterator[Finding]:
        # volumes may make a local artifact folder accessible
        if not (prepared.target.pod_template.get("spec") or {}).get("volumes"):
            experiment_id = prepared.plan.submission.experiment_id
            root = mlflow_runs.artifact_root(experiment_id)
            mlflow_runs.check_artifact_root(root, experiment_id)
        yield from ()

    return findings.run([api_server, identity, artifacts])


def objects(prepared: Prepared) -> list[dict[str, Any]]:
    """The objects of a run that does not exist yet: its Job, ConfigMap and Secret, if any."""
    bundle = prepared.bundle(UNKNOWN_RUN, prepared.plan.submission.experiment_id)
    job = prepared.job(UNKNOWN_RUN, bundle, None)
    secret = manifest.secret(job, bundle)
    return [job, manifest.config_map(job, bundle), *([secret] if secret else [])]
