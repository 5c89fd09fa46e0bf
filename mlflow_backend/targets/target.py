"""A compute target: where and how the pods of a run are made. Field for field what users write."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mlflow_backend.targets.pod_template import check, check_json

DEFAULT_GPU_RESOURCE = "nvidia.com/gpu"

_QUANTITY = re.compile(r"[+]?(\d+\.?\d*|\.\d+)(m|k|[KMGTPE]i|[MGTPE]|[eE][+-]?\d+)?")


def _quantity(value: Any) -> str:
    """A quantity as Kubernetes reads it (apimachinery's resource.Quantity); the unit is
    case-sensitive.
    """
    text = str(value)
    if isinstance(value, bool) or not _QUANTITY.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a Kubernetes quantity: write for example 500m, 4, 512Mi or 16Gi"
        )
    return text


Quantity = Annotated[str | int | float, AfterValidator(_quantity)]


class Strict(BaseModel):
    """Unknown keys are refused; values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(Strict):
    """What one pod gets: requests and limits alike, so that it is the last to be evicted (QoS class
    Guaranteed).

    Further keys are extended resources by their full name, such as `amd.com/gpu: 1`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Quantity]

    cpu: Quantity | None = None
    memory: Quantity | None = None
    ephemeral_storage: Quantity | None = None
    gpu: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _extended_names_have_a_domain(self):
        for name in self.__pydantic_extra__:
            if "/" not in name:
                raise ValueError(
                    f"unknown resource {name!r}: write cpu, memory, gpu, ephemeral_storage or "
                    "domain/name"
                )
        return self


class Cache(Strict):
    """Where environments and packages stay from one run to the next: a claim's volume, or a folder
    of the node.

    `per_user`: each user has a folder of it, so that the runs of one do not change what another's
    import.
    """

    claim: str | None = None
    host_path: str | None = None
    size_limit: Quantity | None = None
    per_user: bool = False

    @model_validator(mode="after")
    def _is_in_one_place(self):
        if self.claim and self.host_path:
            raise ValueError("has both 'claim' and 'host_path': keep one of them")
        if self.per_user and not self.is_kept:
            raise ValueError(
                "has 'per_user' but neither 'claim' nor 'host_path': each pod has a cache of its "
                "own already"
            )
        return self

    @property
    def is_kept(self) -> bool:
        return bool(self.claim or self.host_path)


class Target(Strict):
    """A place in a cluster where runs can be sent. Times are in seconds."""

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
    def _retries_are_counted(self):
        if self.retry_on and not self.retries:
            raise ValueError(
                "has 'retry_on' but no 'retries': say how often, for example retries: 3"
            )
        return self
