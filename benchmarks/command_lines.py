"""The two command lines that are compared, each in an environment of its own with mlflow-skinny.

MLflow's own `kubernetes` backend needs kubernetes<34, a docker_env project, a Job template, and a
registry: the one on localhost:5000 of the cluster that is built here.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

from mlflow.version import VERSION

ENVIRONMENTS = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlflow-compute-bench"
)
ROOT = Path(__file__).parents[1]
TEMPLATE = """\
apiVersion: batch/v1
kind: Job
metadata: {name: "{replaced}", namespace: mlflow}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: "{replaced}"
          image: "{replaced}"
          command: ["{replaced}"]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


def ours(project: Path, config: str) -> list[str]:
    """The command that runs `project` with the backend of this repository."""
    return [
        mlflow_command("ours", "--editable", str(ROOT)),
        "run",
        str(project),
        "--backend",
        "compute",
        "--backend-config",
        config,
    ]


def theirs(folder: Path, image: str, context: str) -> list[str]:
    """The command that runs the same one-line project with the built-in backend."""
    project = folder / "builtin"
    project.mkdir()
    (project / "MLproject").write_text(
        f"name: bench\ndocker_env: {{image: '{image}'}}\nentry_points:\n  main: {{command: 'echo "
        "first'}\n"
    )
    (folder / "job.yaml").write_text(TEMPLATE)
    config = {
        "kube-context": context,
        "kube-job-template-path": str(folder / "job.yaml"),
        "repository-uri": "localhost:5000/bench",
    }
    (folder / "builtin.json").write_text(json.dumps(config))
    return [mlflow_command("builtin", "kubernetes<34", "docker"), "run", str(project), "--backend",
        "kubernetes",
            "--backend-config", str(folder / "builtin.json"), "--build-image"]  # fmt: skip


def mlflow_command(name: str, *packages: str) -> str:
    """The command `mlflow` of the environment `name`, made if it is not there."""
    environment = ENVIRONMENTS / name
    if not (environment / "installed").exists():
        print(f"installing the environment {name}", file=sys.stderr)
        venv.create(environment, with_pip=True)
        subprocess.run(
            [environment / "bin" / "pip", "install", "-q", f"mlflow-skinny=={VERSION}", *packages],
            check=True,
        )
        (environment / "installed").touch()
    return str(environment / "bin" / "mlflow")
