"""A plan: everything that is decided about a run before anything is created. It survives JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_backend.errors import redact
from mlflow_backend.request.project import Project
from mlflow_runner.contract.submission import Submission

UNKNOWN_RUN = "0" * 32
"""The id of a run that does not exist yet."""


@dataclass(frozen=True)
class Source:
    """The project of a run: its URI, the requested version, the entry point, and the parameters as
    the user passed them.
    """

    uri: str
    name: str
    version: str | None
    entry_point: str
    parameters: Mapping[str, str]

    @staticmethod
    def of(project: Project) -> "Source":
        """The project without its files."""
        parameters = {name: str(value) for name, value in project.parameters.items()}
        return Source(project.uri, project.name, project.version, project.entry_point, parameters)


@dataclass(frozen=True)
class Place:
    """Where the run takes place: the `target`, its resolved `fields`, and the `source` that defines
    it.

    `context` and `namespace` are None on this machine.
    """

    target: str
    source: str
    fields: Mapping[str, Any]
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True)
class Plan:
    """What `submit` carries out.

    `submission` is a draft without the run's id. `variables` are MLflow settings for the command,
    `secrets` the names of its secret variables, `snapshot_bytes` the size of the archive.
    """

    source: Source
    place: Place
    submission: Submission
    user: str
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    snapshot_bytes: int = 0

    def to_json(self) -> str:
        """The plan as canonical JSON: equal plans have equal texts."""
        fields = {
            **vars(self),
            "source": vars(self.source),
            "place": vars(self.place),
            "submission": json.loads(self.submission.to_json()),
        }
        return json.dumps(fields, sort_keys=True, indent=1)

    @staticmethod
    def from_json(text: str) -> "Plan":
        """The inverse of `to_json`. Raises ValueError for any other text."""
        try:
            fields = json.loads(text)
            return Plan(
                **{
                    **fields,
                    "source": Source(**fields["source"]),
                    "place": Place(**fields["place"]),
                    "submission": Submission.from_json(json.dumps(fields["submission"])),
                    "secrets": tuple(fields.get("secrets", ())),
                }
            )
        except (TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def submission_of(self, run_id: str, experiment_id: str) -> Submission:
        """The submission of this run, which carries the plan: the runner logs it as an artifact."""
        return self.submission._replace(
            run_id=run_id,
            experiment_id=experiment_id,
            plan=self.without_secrets().to_json(),
        )

    def without_secrets(self) -> "Plan":
        """The plan without the credentials of its URLs, so that others may read it."""
        return Plan.from_json(json.dumps(_redacted(json.loads(self.to_json()))))


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    if isinstance(value, dict):
        return {redact(key): _redacted(item) for key, item in value.items()}
    return value
