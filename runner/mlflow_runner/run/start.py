"""The start of a run: its Submission and its credentials, checked against the hashes that the Job's
command carries.
"""

import hashlib
import json
import os
import shutil
import sys
from typing import Dict, Optional

from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.contract.pins import NONCE, digest
from mlflow_runner.contract.submission import SUBMISSION_FILE, Submission

TERMINATION_LOG = "/dev/termination-log"
"""Kubernetes' default
(https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
"""


def main(arguments, started_s: float) -> int:
    """`run FILE [SHA256 [SECRETS_SHA256]]`: the Submission's file, and the sha256 of it and of the
    run's own Secret.

    Ends with 1, and the reason in the termination message, when they are not those that were
    submitted.
    """
    path, *pins = arguments
    parent, told = os.getppid(), TERMINATION_LOG
    try:
        submission = read_submission(path, *pins[:1])
        told = submission.termination_log or told
        secrets = [read_folder(folder) for folder in submission.secrets_dirs]
        if len(pins) > 1 and digest(secrets[0]) != pins[1]:
            raise RunnerError(
                Cause.RUNNER_ERROR,
                "The run's Secret is not the one that was submitted. Submit again.",
            )
        for folder, files in zip(submission.secrets_dirs, secrets):
            set_variables(folder, files)
        run = _begin(submission, started_s)
    except RunnerError as error:
        print(f"[mlflow-compute] {error}", file=sys.stderr, flush=True)
        _write_termination_message(told, error)
        return 1
    try:
        return run.execute()
    finally:
        if os.getppid() != parent:  # nothing else looks at them any more
            for folder in submission.own_dirs:
                shutil.rmtree(folder, ignore_errors=True)


def _begin(submission: Submission, started_s: float):
    """The run, which from then on tells its end itself. Raises RunnerError."""
    from mlflow_runner.run.phases import Run

    try:
        return Run(submission, started_s)
    except Exception as error:  # a folder that cannot be written, a full disk
        raise RunnerError(
            Cause.RUNNER_ERROR, f"The runner cannot start: {type(error).__name__}: {error}."
        ) from None


def read_submission(path: str, sha256: Optional[str] = None) -> Submission:
    """The Submission in the file.

    Raises RunnerError when its bytes do not have the hash, or are no Submission.
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
            Cause.RUNNER_ERROR, f"The run's description cannot be used: {error}."
        ) from None


def read_folder(folder: str) -> Dict[str, bytes]:
    """The files of a mounted Secret by their key; the kubelet's own entries begin with two dots.

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
    """Make each file a variable; `NAME.file` makes NAME hold the file's path.

    What cannot be a variable is left out and said.
    """
    for name, data in files.items():
        if name in (SUBMISSION_FILE, NONCE):
            continue
        if name.endswith(".file"):
            os.environ[name[: -len(".file")]] = os.path.join(folder, name)
        elif b"\0" in data:
            print(
                f"[mlflow-compute] Secret key {name}: holds a zero byte, which no variable can; "
                f"name it {name}.file",
                file=sys.stderr,
            )
        else:
            os.environ[name] = os.fsdecode(data)


def _write_termination_message(path: str, error: RunnerError) -> None:
    told = {
        "status": "FAILED",
        "exit_code": 1,
        "cause": str(error.cause),
        "message": str(error),
        "reported": False,
    }
    try:
        with open(path, "w") as file:
            json.dump(told, file)
    except OSError:
        pass  # outside a pod; the line above says the same
