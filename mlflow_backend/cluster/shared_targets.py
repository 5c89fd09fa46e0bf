"""The targets that an administrator has defined for all users of a cluster."""

from mlflow_backend.cluster.api import connect
from mlflow_backend.config.targets_file import FILE_NAME, Targets, parse
from mlflow_backend.errors import ConfigError

CONFIG_MAP = "mlflow-compute-targets"


def load() -> Targets | None:
    """Those in the ConfigMap of the current context's namespace; None without one. Raises ClusterError or ConfigError."""
    cluster = connect()
    found = cluster.read_config_map(CONFIG_MAP)
    if found is None:
        return None
    source = f"ConfigMap {cluster.namespace}/{CONFIG_MAP}"
    text = (found.get("data") or {}).get(FILE_NAME)
    if text is None:
        raise ConfigError(f"{source}: has no key '{FILE_NAME}'")
    return parse(text, source)
