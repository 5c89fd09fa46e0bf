"""`python_env.yaml`, MLflow's own: a Python version, build dependencies, dependencies."""

from pathlib import Path

from mlflow_backend.environment import requirements
from mlflow_backend.environment.spec import Spec, check_keys, entries, load_yaml

KEYS = ("name", "python", "build_dependencies", "dependencies")


def read(path: Path) -> Spec:
    """The Spec of the file. Raises EnvironmentSpecError naming file and entry."""
    content = load_yaml(path)
    check_keys(content, KEYS, path)
    listed = [entry for key in ("build_dependencies", "dependencies") for entry in entries(content, key, path)]
    return Spec(path, content.get("python") or None, pip=tuple(line for entry in listed for line in requirements.lines(entry, path)))
