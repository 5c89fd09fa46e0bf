"""Show what a run on this machine would do; nothing is created."""

import yaml

from mlflow_backend import scratch
from mlflow_backend.places.local.prepare import prepare
from mlflow_backend.plan.plan import Plan
from mlflow_backend.progress import Progress
from mlflow_backend.request.backend_config import BackendConfig
from mlflow_backend.request.project import Project


def dry_run(
    config: BackendConfig, project: Project, experiment_id: str, client_uri: str, progress: Progress
) -> str:
    """A description of the run, as YAML. Raises ComputeError."""
    prepared = prepare(config, project, experiment_id, client_uri, progress)
    scratch.discard(prepared.scratch)
    progress.say("dry run: the run would start on this machine; nothing is created")
    return describe(prepared.plan)


def describe(plan: Plan) -> str:
    """The parts of the plan that a user chooses, as YAML, without credentials."""
    public = plan.without_secrets()
    draft = public.submission
    shown = {
        "project": public.source.uri,
        "entry_point": public.source.entry_point,
        "parameters": dict(public.source.parameters),
        "command": draft.command,
        "folder": draft.project_dir,
        "tracking_uri": draft.tracking_uri,
        "experiment_id": draft.experiment_id,
        "environment": draft.environment.key if draft.environment else "this Python's own",
        "downloads": [item.uri for item in draft.downloads],
    }
    return yaml.safe_dump(shown, sort_keys=False, width=100)
