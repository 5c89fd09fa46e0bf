"""The `backend_config` of one run: COMPUTE, USE_CONDA, STREAM_OUTPUT, DRY_RUN, RUN_ID, and
overrides of the target's fields.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictStr

from mlflow_backend.errors import ConfigError, nearest
from mlflow_backend.targets.target import Strict, Target
from mlflow_backend.targets.validation import InvalidValue, validate

OF_USER = {"COMPUTE", "USE_CONDA", "STREAM_OUTPUT", "DRY_RUN", "RUN_ID"}
OF_MLFLOW = {
    "ENV_MANAGER", "SYNCHRONOUS", "DOCKER_ARGS", "STORAGE_DIR", "build_image", "docker_auth",
    "_mlflow_local_backend_run_id",
}  # fmt: skip
"""Keys that MLflow adds to every backend_config (mlflow/projects/utils.py)."""


def _parse_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise InvalidValue(f"{value!r:.100} is not a boolean", "write true or false")


Boolean = Annotated[bool, BeforeValidator(_parse_boolean)]


class BackendConfig(Strict):
    """The user's options for one run; `overrides` are fields of a target."""

    COMPUTE: StrictStr | None = None
    USE_CONDA: Boolean = True
    STREAM_OUTPUT: Boolean = True
    DRY_RUN: Boolean = False
    overrides: dict[str, Any] = Field(default_factory=dict)
    env_manager: str | None = None
    synchronous: bool = True
    storage_dir: str | None = None
    docker_args: dict[str, Any] = Field(default_factory=dict)
    docker_auth: dict[str, str] | None = None
    build_image: bool = False
    RUN_ID: StrictStr | None = None

    @property
    def is_local(self) -> bool:
        """Whether the run takes place on this machine."""
        return self.COMPUTE in (None, "", "local", "LOCAL")

    @property
    def builds_environment(self) -> bool:
        """Whether a run on this machine has its own environment; `--env-manager` takes precedence
        over USE_CONDA.
        """
        return self.env_manager != "local" if self.env_manager else self.USE_CONDA


def parse(raw: Any) -> BackendConfig:
    """The dict that MLflow passes to a backend, validated. Raises ConfigError."""
    if not isinstance(raw, dict):
        raise ConfigError(
            f"backend_config: {raw!r} is not a JSON object",
            hint='write for example {"COMPUTE": "NAME"}',
        )
    fields = set(Target.model_fields)
    values: dict[str, Any] = {key: raw[key] for key in OF_USER if key in raw}
    values["overrides"] = {key: value for key, value in raw.items() if key in fields}
    for key in raw:
        if key not in OF_USER | fields | OF_MLFLOW:
            raise ConfigError(
                f"backend_config: unknown key '{key}'",
                code="UnknownField",
                hint=nearest(str(key), OF_USER | fields),
            )
    values.update(
        env_manager=raw.get("ENV_MANAGER"),
        synchronous=raw.get("SYNCHRONOUS", True),
        storage_dir=raw.get("STORAGE_DIR"),
        docker_args=raw.get("DOCKER_ARGS") or {},
        docker_auth=raw.get("docker_auth"),
        build_image=bool(raw.get("build_image")),
    )
    config = validate(BackendConfig, values, _describe)
    if config.is_local and config.overrides:
        key = next(iter(config.overrides))
        raise ConfigError(
            f"backend_config: '{key}' is a field of a target, and COMPUTE names no target",
            code="MissingSetting",
            hint=f"set COMPUTE, or remove '{key}'",
        )
    return config


def _describe(*path: int | str) -> str:
    return " ".join(["backend_config", *map(str, path[:1])])
