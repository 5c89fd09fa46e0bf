"""The files channel: what shows later how the run was made, its code and the lock of its
environment.
"""

import os
from typing import Callable, List, Optional, Sequence, Tuple

from mlflow_runner.contract.answers import Refused
from mlflow_runner.contract.submission import CONDA_LOCK, PYLOCK, Submission
from mlflow_runner.report.channel import Channel
from mlflow_runner.report.progress import Progress


class Files(Channel):
    """`files` are artifact paths and local paths; each is sent once."""

    name = "the code and lock files"

    def __init__(self, directory, say: Callable[[str], None], files: Sequence[Tuple[str, str]]):
        progress = Progress(directory, "files")
        super().__init__(progress, say)
        self._done: List[str] = progress.get("done", [])
        self._dropped: List[str] = progress.get("dropped", [])
        self._left = [file for file in files if file[0] not in self._done + self._dropped]

    def send(self, run, closing: bool) -> None:
        while self._left:
            artifact, path = self._left[0]
            try:
                run.upload_file(artifact, path)
            except OSError as error:
                raise Refused(
                    f"{os.path.basename(path)} cannot be read: {error.strerror}"
                ) from None
            self._done.append(artifact)
            self._go_on()

    def drop(self, error: Refused) -> bool:
        artifact = self._left[0][0]
        self._dropped.append(artifact)
        self._go_on()
        self._say(f"{artifact} is not kept with the run: {error}")
        return True

    def _go_on(self):
        self._left.pop(0)
        self._progress.set(done=self._done, dropped=self._dropped)

    def missing(self) -> Optional[str]:
        names = self._dropped + [artifact for artifact, _ in self._left]
        return (
            f"{', '.join(names)} missing: {self._why or 'there was no time left'}"
            if names
            else None
        )


def files_to_keep(submission: Submission) -> List[Tuple[str, str]]:
    """Artifact path and local path of each file."""
    files = [("code/snapshot.tar.gz", submission.keep_archive)] if submission.keep_archive else []
    if submission.plan:
        path = os.path.join(submission.scratch_dir, "plan.json")
        with open(path, "w") as file:
            file.write(submission.plan)
        files.append(("compute/plan.json", path))
    if submission.environment:
        for name in (CONDA_LOCK, PYLOCK):
            path = os.path.join(submission.environment.lock_dir, name)
            if os.path.exists(path):
                files.append((f"environment/{name}", path))
    return files
