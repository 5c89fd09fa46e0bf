"""The contract between client and runner: what to run, where, and where to report.

A `Submission` is sent as the file `run.json`: in the run's ConfigMap, or in its Secret where a
parameter or the tracking URI contains a credential. Logins reach the runner as environment
variables (a run on this machine) or as further files of the Secret (a pod).

Named tuples load faster than dataclasses, which cost 7 ms of a pod's start (`inspect`).
"""

import json
from typing import Any, Dict, NamedTuple, Optional, Tuple

from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.topology import Topology

SUBMISSION_FILE = "run.json"

CONDA_LOCK = "conda-lock.yml"
PYLOCK = "pylock.toml"
CA_BUNDLE = "ca.pem"
"""Files of an environment's lock folder."""

NETRC = "MLFLOW_COMPUTE_NETRC"
RATTLER_AUTH = "MLFLOW_COMPUTE_RATTLER_AUTH"
"""Variables that name files with the credentials of package indexes; removed from the environment
of the user's command.
"""

REQUIRED = (
    "run_id",
    "experiment_id",
    "tracking_uri",
    "command",
    "project_dir",
    "scratch_dir",
    "cache_dir",
)
"""The fields of a Submission without a default, all strings."""


class Archive(NamedTuple):
    """The project's files: a tar.gz with this sha256 (hex).

    `path` is a file on the runner's machine; without it, `artifact` is the path below the run's
    artifacts.
    """

    sha256: str
    path: Optional[str] = None
    artifact: Optional[str] = None


class Download(NamedTuple):
    """A remote parameter value: `uri` is downloaded to the absolute `path` before the command
    starts.
    """

    uri: str
    path: str


class Environment(NamedTuple):
    """A locked environment. `key` (hex) is the hash of what it installs.

    The lock files are in the folder `lock_dir` of the runner's machine. `conda` and `pip` count
    packages. `python` is the version of a virtual environment; None where Python is one of the
    conda packages. `variables` are set for the command. `index` is the URL of the Python index for
    source builds; None: uv's default. `packages` is the artifact of the run with all package files,
    if they were staged.
    """

    key: str
    platform: str
    python: Optional[str]
    lock_dir: str
    conda: int = 0
    pip: int = 0
    variables: Tuple[Tuple[str, str], ...] = ()
    index: Optional[str] = None  # type: ignore[assignment]  # tuple.index: unused on named tuples
    packages: Optional[str] = None


class Submission(NamedTuple):
    """Everything the runner needs to know about one run.

    Paths are absolute on the runner's machine. `archive` is None where the project runs in place;
    otherwise it is unpacked to `unpack_dir` (None: `project_dir`). `stopped_means` is the cause of
    an end by SIGTERM, which a pod also receives at an eviction. The runner lives for at least
    `least_lifetime_s`, even if the run ends sooner. Up to `retries` further pods follow a pod that
    was disrupted or whose command exited with a code in `retry_on`. Times are in seconds. `mark` is
    a random word at the end of the runner's last line. The files in `secrets_dirs` become
    variables; later folders override earlier ones. The login to the tracking server may also be
    sent to `credential_hosts` (HOST or HOST:PORT). `own_dirs` are temporary folders of this run:
    the process that started the runner removes them, or the runner if that process no longer
    exists.
    """

    run_id: str
    experiment_id: str
    tracking_uri: str
    command: str
    project_dir: str
    scratch_dir: str
    cache_dir: str
    unpack_dir: Optional[str] = None
    archive: Optional[Archive] = None
    keep_archive: Optional[str] = None  # a file to log as the run's code
    plan: Optional[str] = None  # JSON to log as the run's plan, without credentials
    downloads: Tuple[Download, ...] = ()
    environment: Optional[Environment] = None
    secrets_dirs: Tuple[str, ...] = ()
    termination_log: Optional[str] = None
    grace_period_s: float = 25.0
    report_timeout_s: float = 600.0
    stopped_means: str = Cause.CANCELLED
    least_lifetime_s: float = 0.0
    cache_limit_bytes: Optional[int] = None
    phases: Tuple[Tuple[str, float], ...] = ()  # durations before the runner started
    retries: int = 0
    retry_on: Tuple[int, ...] = ()
    log_backlog_bytes: int = 256 * 1024 * 1024
    mark: str = ""
    credential_hosts: Tuple[str, ...] = ()
    own_dirs: Tuple[str, ...] = ()
    topology: Topology = Topology()

    def to_json(self) -> str:
        """Canonical JSON: equal submissions give equal text."""
        fields = self._asdict()
        fields["archive"] = self.archive and self.archive._asdict()
        fields["environment"] = self.environment and self.environment._asdict()
        fields["downloads"] = [item._asdict() for item in self.downloads]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Submission":
        """The inverse of `to_json`. Raises ValueError for any other text."""
        try:
            return Submission._from_fields(json.loads(text))
        except (TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None

    @staticmethod
    def _from_fields(fields: Dict[str, Any]) -> "Submission":
        wrong = [name for name in REQUIRED if not isinstance(fields[name], str)]
        if wrong:
            raise ValueError(f"'{wrong[0]}' is not a string")
        if fields.get("archive"):
            fields["archive"] = Archive(**fields["archive"])
        if fields.get("environment"):
            variables = tuple(
                (name, value) for name, value in fields["environment"].pop("variables")
            )
            fields["environment"] = Environment(variables=variables, **fields["environment"])
        fields["phases"] = tuple((name, value) for name, value in fields.get("phases", ()))
        fields["retry_on"] = tuple(fields.get("retry_on", ()))
        fields["topology"] = Topology(*fields.get("topology", ()))
        for name in ("secrets_dirs", "credential_hosts", "own_dirs"):
            fields[name] = tuple(fields.get(name, ()))
        fields["downloads"] = tuple(Download(**item) for item in fields.get("downloads", ()))
        return Submission(**fields)
