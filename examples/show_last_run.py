"""Show the newest run of an experiment: `python examples/show_last_run.py [EXPERIMENT_ID]`."""

import sys

from mlflow.tracking import MlflowClient
from rich.console import Console
from rich.table import Table

client = MlflowClient()
experiment = sys.argv[1] if len(sys.argv) > 1 else "0"
runs = client.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=1)
if not runs:
    sys.exit(f"Experiment {experiment} has no runs.")
run = runs[0]
table = Table(
    "what", "name", "value", title=f"Run {run.info.run_name} ({run.info.run_id}): {run.info.status}"
)
for kind, values in (("param", run.data.params), ("metric", run.data.metrics)):
    for name, value in sorted(values.items()):
        table.add_row(kind, name, str(value))
for model in run.outputs.model_outputs if run.outputs else ():
    table.add_row("model", client.get_logged_model(model.model_id).name, model.model_id)
for artifact in client.list_artifacts(run.info.run_id):
    table.add_row(
        "artifact", artifact.path, "folder" if artifact.is_dir else f"{artifact.file_size} bytes"
    )
Console(width=120).print(table)
