"""`python_env.yaml`, MLflow's own: a Python version, build dependencies, dependencies."""

from pathlib import Path

from mlflow_backend.environment.parsers import project_files
from mlflow_backend.environment.parsers.requirements import Reader
from mlflow_backend.environment.parsers.spec import Spec, check_keys, entries, load_yaml, scalar

KEYS = ("name", "python", "build_dependencies", "dependencies")


def read(path: Path, root: Path) -> Spec:
    """The Spec of the file, of a project in the folder `root`.

    Raises EnvironmentSpecError naming file and entry.
    """
    content = load_yaml(project_files.read(path, root), path)
    check_keys(content, KEYS, path)
    listed = [
        entry
        for key in ("build_dependencies", "dependencies")
        for entry in entries(content, key, path)
    ]
    reader = Reader(root)
    return Spec(
        path,
        scalar(content, "python", path),
        pip=tuple(line for entry in listed for line in reader.lines(entry, path)),
    )
