"""The start of a run: its Submission and its credentials, checked against the hashes in the Job's
command.
"""

import hashlib
import os
import shutil
import sys
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence

from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.contract.pins import NONCE, digest
from mlflow_runner.contract.submission import SUBMISSION_FILE, Submission
from mlflow_runner.log.output import PREFIX

if TYPE_CHECKING:
    from mlflow_runner.run.phases import Run

TERMINATION_LOG = "/dev/termination-log"
"""Kubernetes' default
(https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
"""


def main(arguments: List[str], started_s: float) -> int:
    """`run FILE [SHA256 [SECRETS_SHA256]]`: the Submission's file, its sha256, and the sha256 of
    the run's own Secret.

    The exit code of the runner: 1, with the reason in the termination message, when the hashes
    differ. `started_s` is the monotonic time of the process's start.
    """
    path, *pins = arguments
    parent, termination_log = os.getppid(), TERMINATION_LOG
    try:
        submission = read_submission(path, *pins[:1])
        termination_log = submission.termination_log or termination_log
        _load_secrets(submission.secrets_dirs, *pins[1:])
        run = _begin(submission, started_s)
    except RunnerError as error:
        print(f"{PREFIX}{error}", file=sys.stderr, flush=True)
        _write_termination_message(termination_log, error)
        return 1
    try:
        return run.execute()
    finally:
        if os.getppid() != parent:  # the client that would remove them is gone
            for folder in submission.own_dirs:
                shutil.rmtree(folder, ignore_errors=True)


def read_submission(path: str, sha256: Optional[str] = None) -> Submission:
    """The Submission in the file.

    Raises RunnerError when its bytes do not have the hash (hex), or are not a Submission.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise RunnerError(
            Cause.RUNNER_ERROR, f"The run's description cannot be read: {error}."
        ) from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise RunnerError(
            Cause.RUNNER_ERROR,
            "The run's description is not the one that was submitted. Submit again.",
        )
    try:
        return Submission.from_json(data.decode())
    except (ValueError, TypeError) as error:
        raise RunnerError(
            Cause.RUNNER_ERROR, f"The run's description is not valid: {error}."
        ) from None


def _load_secrets(folders: Sequence[str], sha256: Optional[str] = None) -> None:
    """Set the variables of all folders; the first is the run's own Secret, with this hash (hex).

    Raises RunnerError.
    """
    secrets = [read_folder(folder) for folder in folders]
    if sha256 is not None and digest(secrets[0]) != sha256:
        raise RunnerError(
            Cause.RUNNER_ERROR, "The run's Secret is not the one that was submitted. Submit again."
        )
    for folder, files in zip(folders, secrets):
        set_variables(folder, files)


def read_folder(folder: str) -> Dict[str, bytes]:
    """The files of a mounted Secret by key, without the kubelet's own entries, whose names begin
    with two dots.

    Raises RunnerError.
    """
    files = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        if not name.startswith("..") and os.path.isfile(path):
            try:
                with open(path, "rb") as file:
                    files[name] = file.read()
            except OSError as error:
                raise RunnerError(
                    Cause.RUNNER_ERROR, f"The Secret key {name} cannot be read: {error}."
                ) from None
    return files


def set_variables(folder: str, files: Dict[str, bytes]) -> None:
    """Set an environment variable for each file; for `NAME.file`, NAME holds the file's path.

    Skips content that a variable cannot hold, with a message.
    """
    for name, data in files.items():
        if name in (SUBMISSION_FILE, NONCE):
            continue
        if name.endswith(".file"):
            os.environ[name[: -len(".file")]] = os.path.join(folder, name)
        elif b"\0" in data:
            print(
                f"{PREFIX}Secret key {name}: contains a NUL byte, which an environment variable "
                f"cannot hold: name the key {name}.file",
                file=sys.stderr,
            )
        else:
            os.environ[name] = os.fsdecode(data)


def _begin(submission: Submission, started_s: float) -> "Run":
    """The run, which reports its own end from then on. Raises RunnerError."""
    from mlflow_runner.run.phases import Run

    try:
        return Run(submission, started_s)
    except Exception as error:  # such as a read-only folder or a full disk
        raise RunnerError(
            Cause.RUNNER_ERROR, f"The runner cannot start: {type(error).__name__}: {error}."
        ) from None


def _write_termination_message(path: str, error: RunnerError) -> None:
    from mlflow_runner.contract.outcome import ENDED, Outcome
    from mlflow_runner.run.termination import write_message

    write_message(path, Outcome(ENDED, "FAILED", error.cause, str(error)), 1, reported=False)
