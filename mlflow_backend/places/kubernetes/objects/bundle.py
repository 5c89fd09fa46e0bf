"""What a pod is started from: the runner, the Submission, the code and the credentials, each pinned
by its sha256 in the Job.

A ConfigMap or Secret can be replaced by others who may create them; the command of a Job cannot be
changed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_backend.files import snapshot
from mlflow_runner.contract.pins import NONCE, digest
from mlflow_runner.contract.submission import SUBMISSION_FILE, Submission

BUNDLE_DIR = "/mlflow/bundle"
SECRETS_DIR = "/mlflow/secrets"
RUNNER_KEY = "runner.pyz"
BOOT = """\
import hashlib, sys
sha256, source, runner = sys.argv[1:4]
with open(source, "rb") as file:
    data = file.read()
if hashlib.sha256(data).hexdigest() != sha256:
    message = "The runner in the run's ConfigMap is not the one that was submitted. Submit again."
    with open("/dev/termination-log", "w") as file:
        told = '{"status": "FAILED", "exit_code": 1, "cause": "RunnerError", "message": "%s", '
        file.write(told % message + '"reported": false}')
    sys.exit("[mlflow-compute] " + message)
with open(runner, "wb") as file:
    file.write(data)
sys.argv = sys.argv[3:]
sys.path.insert(0, runner)
from mlflow_runner.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""Checks the runner and starts it from a copy in the pod: the file that was checked is the one that
runs.
"""


@dataclass(frozen=True)
class Bundle:
    """The files of a run's ConfigMap and of its Secret (empty: it has none), and the path of the
    runner's copy in the pod.
    """

    public: Mapping[str, bytes]
    secret: Mapping[str, bytes]
    runner: str

    @property
    def command(self) -> list[str]:
        """The container's command, with the hash of all that the pod reads."""
        place, files = (
            (SECRETS_DIR, self.secret)
            if SUBMISSION_FILE in self.secret
            else (BUNDLE_DIR, self.public)
        )
        pins = [_sha256(files[SUBMISSION_FILE]), *([digest(self.secret)] if self.secret else [])]
        runner = [_sha256(self.public[RUNNER_KEY]), f"{BUNDLE_DIR}/{RUNNER_KEY}", self.runner]
        return ["python3", "-I", "-c", BOOT, *runner, "run", f"{place}/{SUBMISSION_FILE}", *pins]


def make(
    runner: bytes,
    submission: Submission,
    archive: bytes | None,
    credentials: Mapping[str, bytes],
    is_secret: bool,
    nonce: bytes,
    work_dir: str,
) -> Bundle:
    """The bundle of one run.

    `is_secret`: the Submission itself holds a credential; `nonce` is random.
    """
    text = submission.to_json().encode()
    public = {RUNNER_KEY: runner}
    if archive is not None:
        public[snapshot.FILE_NAME] = archive
    secret = dict(credentials)
    (secret if is_secret else public)[SUBMISSION_FILE] = text
    if secret:
        secret[NONCE] = nonce
    return Bundle(public, secret, f"{work_dir}/{RUNNER_KEY}")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
