"""A compute target: where and how pods are created. Its fields are those of the targets file."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mlflow_backend.targets.pod_template import check, check_json
from mlflow_backend.targets.validation import InvalidValue

DEFAULT_GPU_RESOURCE = "nvidia.com/gpu"

_QUANTITY = re.compile(r"[+]?(\d+\.?\d*|\.\d+)(m|k|[KMGTPE]i|[MGTPE]|[eE][+-]?\d+)?")


def _quantity(value: Any) -> str:
    """A quantity of Kubernetes (apimachinery's resource.Quantity); the unit is case-sensitive."""
    text = str(value)
    if isinstance(value, bool) or not _QUANTITY.fullmatch(text):
        raise InvalidValue(
            f"{text!r} is not a Kubernetes quantity", "write for example 500m, 4, 512Mi or 16Gi"
        )
    return text


Quantity = Annotated[str | int | float, AfterValidator(_quantity)]


class Strict(BaseModel):
    """A model that rejects unknown keys and does not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(Strict):
    """The resources of a pod, its requests and limits alike: with the QoS class Guaranteed it is
    evicted last.

    Further keys are extended resources by their full name, such as `amd.com/gpu: 1`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Quantity] = Field(init=False)

    cpu: Quantity | None = None
    memory: Quantity | None = None
    ephemeral_storage: Quantity | None = None
    gpu: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _check_extended_names(self) -> "Resources":
        for name in self.__pydantic_extra__:
            if "/" not in name:
                raise InvalidValue(
                    f"unknown resource {name!r}",
                    "write cpu, memory, gpu, ephemeral_storage or domain/name",
                )
        return self


class Cache(Strict):
    """Where environments and packages are cached between runs: the volume of a claim, or a folder
    of the node.

    With `per_user` each user has a separate folder, so that no run imports packages that another
    user could have changed.
    """

    claim: str | None = None
    host_path: str | None = None
    size_limit: Quantity | None = None
    per_user: bool = False

    @model_validator(mode="after")
    def _check_place(self) -> "Cache":
        if self.claim and self.host_path:
            raise InvalidValue("has both 'claim' and 'host_path'", "remove one of them")
        if self.per_user and not self.is_kept:
            raise InvalidValue(
                "has 'per_user' but neither 'claim' nor 'host_path'",
                "remove it, as each pod has its own cache",
            )
        return self

    @property
    def is_kept(self) -> bool:
        """Whether the cache outlives the pod."""
        return bool(self.claim or self.host_path)


class Target(Strict):
    """A place in a cluster for runs. Times are in seconds."""

    context: str | None = None
    namespace: str | None = None
    image: str | None = None
    repository: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[str, ...] = ()
    resources: Resources = Resources()
    cache: Cache = Cache()
    stage_packages: bool = False
    platform: Literal["linux-64", "linux-aarch64", "linux-ppc64le"] | None = None
    virtual_packages: dict[Annotated[str, Field(pattern="^__[a-z]+$")], str] = {}
    gpu_resource: str = DEFAULT_GPU_RESOURCE
    env: dict[str, str | int | float | bool] = {}
    secret: str | None = None
    node_selector: dict[str, str] = {}
    tolerations: Annotated[tuple[dict[str, Any], ...], AfterValidator(check_json)] = ()
    service_account: str | None = None
    queue: str | None = None
    tracking_uri: str | None = None
    tracking_auth: Literal["kubernetes"] | None = None
    allow_env: tuple[str, ...] = ()
    allow_builds: bool = False
    credential_hosts: tuple[str, ...] = ()
    deadline: Annotated[int, Field(gt=0)] | None = None
    start_timeout: Annotated[int, Field(gt=0)] | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    retry_on: tuple[Annotated[int, Field(ge=1, le=255)], ...] = ()
    grace_period: Annotated[int, Field(ge=10)] = 30
    keep_finished: Annotated[int, Field(ge=0)] = 86400
    snapshot_files: Annotated[int, Field(gt=0, le=100_000)] = 2_000
    snapshot_bytes: Annotated[int, Field(gt=0, le=50_000_000_000)] = 300_000_000
    pod_template: Annotated[dict[str, Any], AfterValidator(check)] = {}

    @model_validator(mode="after")
    def _check_retries(self) -> "Target":
        if self.retry_on and not self.retries:
            raise InvalidValue(
                "has 'retry_on' but no 'retries'", "write how often, for example retries: 3"
            )
        return self
