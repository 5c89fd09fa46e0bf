"""Show what a submit would create, and have the API server validate it; nothing is created."""

import base64
from typing import Any

import yaml

from mlflow_backend.places.kubernetes.check import check, objects
from mlflow_backend.places.kubernetes.client.answers import Object
from mlflow_backend.places.kubernetes.prepare import Prepared, prepare
from mlflow_backend.plan.findings import refuse
from mlflow_backend.progress import Progress
from mlflow_backend.request.backend_config import BackendConfig
from mlflow_backend.request.project import Project

HIDDEN = "***"


def dry_run(
    config: BackendConfig, project: Project, experiment_id: str, client_uri: str, progress: Progress
) -> str:
    """The objects as YAML documents.

    Raises ComputeError, after showing them and all findings, if the submit would be rejected.
    """
    with prepare(config, project, experiment_id, client_uri, progress) as prepared:
        text = describe(prepared)
        findings = list(dict.fromkeys(check(prepared)))
        if any(finding.level == "error" for finding in findings):
            progress.output(text)
        for finding in findings:
            progress.say(str(finding))
        refuse(findings)
        where = f"namespace {prepared.cluster.namespace} (context {prepared.cluster.context})"
        progress.say(f"dry run: the API server accepts this in {where}; nothing is created")
    return text


def describe(prepared: Prepared) -> str:
    """The objects as YAML documents, without the values of Secrets; of files only the size is
    shown. The run's id is zeros, as there is no run yet.
    """
    text: str = yaml.safe_dump_all(map(_redact, objects(prepared)), sort_keys=False, width=100)
    return text


def _redact(item: Object) -> dict[str, Any]:
    shown = dict(item)
    if item["kind"] == "Secret":
        shown["data"] = dict.fromkeys(item["data"], HIDDEN)
    if "binaryData" in item:
        shown["binaryData"] = {
            name: f"({len(base64.b64decode(value))} bytes)"
            for name, value in item["binaryData"].items()
        }
    return shown
