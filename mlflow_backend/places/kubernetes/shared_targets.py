"""The targets that an administrator defines for all users of a cluster."""

from mlflow_backend.errors import ConfigError
from mlflow_backend.places.kubernetes.client.connect import connect
from mlflow_backend.targets.targets_file import FILE_NAME, Targets, parse

NAMESPACE = "mlflow-compute-system"
"""It has no runs; users who submit may only read this one ConfigMap there (k8s/base)."""
CONFIG_MAP = "mlflow-compute-targets"


def load() -> Targets | None:
    """The targets of the current context's cluster; None where there are none.

    Raises ClusterError or ConfigError.
    """
    config_map = connect(None, NAMESPACE).read_config_map(CONFIG_MAP)
    if config_map is None:
        return None
    source = f"ConfigMap {NAMESPACE}/{CONFIG_MAP}"
    text = (config_map.get("data") or {}).get(FILE_NAME)
    if text is None:
        raise ConfigError(f"{source}: has no key '{FILE_NAME}'", code="InvalidFile")
    return parse(text, source)
