"""The `backend_config` of one run: COMPUTE, USE_CONDA, STREAM_OUTPUT, DRY_RUN, RUN_ID, and fields
of the target overridden.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, StrictStr

from mlflow_backend.errors import ConfigError, nearest
from mlflow_backend.targets.target import Strict, Target
from mlflow_backend.targets.validation import validate

OF_MLFLOW = {
    "ENV_MANAGER", "SYNCHRONOUS", "DOCKER_ARGS", "STORAGE_DIR", "build_image", "docker_auth",
    "_mlflow_local_backend_run_id",
}  # fmt: skip
"""Keys that MLflow itself adds to every backend_config (mlflow/projects/utils.py)."""


def _boolean(value: Any) -> Any:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


Boolean = Annotated[bool, BeforeValidator(_boolean)]


class BackendConfig(Strict):
    """What the user of one run asked for. `overrides` are fields of a target."""

    COMPUTE: StrictStr | None = None
    USE_CONDA: Boolean = True
    STREAM_OUTPUT: Boolean = True
    DRY_RUN: Boolean = False
    overrides: dict[str, Any] = {}
    env_manager: str | None = None
    synchronous: bool = True
    storage_dir: str | None = None
    docker_args: dict[str, Any] = {}
    docker_auth: dict[str, str] | None = None
    build_image: bool = False
    RUN_ID: StrictStr | None = None

    @property
    def is_local(self) -> bool:
        return self.COMPUTE in (None, "", "local", "LOCAL")

    @property
    def builds_environment(self) -> bool:
        """For a run on this machine; an explicit --env-manager wins over USE_CONDA."""
        return self.env_manager != "local" if self.env_manager else self.USE_CONDA


def parse(raw: Any) -> BackendConfig:
    """The dict that MLflow hands to a backend, validated. Raises ConfigError."""
    if not isinstance(raw, dict):
        raise ConfigError(
            f'backend_config: write a JSON object such as {{"COMPUTE": "NAME"}}, found {raw!r}'
        )
    own = {key for key in ("COMPUTE", "USE_CONDA", "STREAM_OUTPUT", "DRY_RUN", "RUN_ID")}
    fields = set(Target.model_fields)
    values: dict[str, Any] = {key: raw[key] for key in own if key in raw}
    values["overrides"] = {key: value for key, value in raw.items() if key in fields}
    for key in raw:
        if key not in own | fields | OF_MLFLOW:
            raise ConfigError(
                f"backend_config: unknown key '{key}'; {nearest(str(key), own | fields)}"
            )
    values.update(
        env_manager=raw.get("ENV_MANAGER"),
        synchronous=raw.get("SYNCHRONOUS", True),
        storage_dir=raw.get("STORAGE_DIR"),
        docker_args=raw.get("DOCKER_ARGS") or {},
        docker_auth=raw.get("docker_auth"),
        build_image=bool(raw.get("build_image")),
    )
    config = validate(
        BackendConfig,
        values,
        lambda path: "backend_config" + "".join(f" {part}" for part in path[:1]),
    )
    if config.is_local and config.overrides:
        key = next(iter(config.overrides))
        raise ConfigError(
            f"backend_config: '{key}' is a field of a target; set COMPUTE too, or leave it out"
        )
    return config
