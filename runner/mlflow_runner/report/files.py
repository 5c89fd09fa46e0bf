"""The files channel: what documents how the run was made, such as its code and the lock of its
environment.
"""

import os
from typing import TYPE_CHECKING, Callable, List, Optional, Sequence, Tuple

from mlflow_runner.contract.answers import Refused
from mlflow_runner.contract.submission import CONDA_LOCK, PYLOCK, Submission
from mlflow_runner.report.channel import Channel
from mlflow_runner.report.progress import Progress

if TYPE_CHECKING:
    from mlflow_runner.tracking import RunClient


class Files(Channel):
    """`files` are pairs of artifact path and local path; each is sent once."""

    name = "the code and lock files"

    def __init__(
        self, directory: str, say: Callable[[str], None], files: Sequence[Tuple[str, str]]
    ) -> None:
        progress = Progress(directory, "files")
        super().__init__(progress, say)
        self._done: List[str] = progress.get("done", [])
        self._dropped: List[str] = progress.get("dropped", [])
        self._left = [file for file in files if file[0] not in self._done + self._dropped]

    def send(self, run: "RunClient", closing: bool) -> None:
        """See `Channel.send`."""
        while self._left:
            artifact, path = self._left[0]
            try:
                run.upload_file(artifact, path)
            except OSError as error:
                raise Refused(
                    f"could not read {os.path.basename(path)}: {error.strerror}"
                ) from None
            self._done.append(artifact)
            self._go_on()

    def drop(self, error: Refused) -> bool:
        """See `Channel.drop`."""
        artifact = self._left[0][0]
        self._dropped.append(artifact)
        self._go_on()
        self._say(f"could not upload {artifact}: {error}")
        return True

    def _go_on(self) -> None:
        self._left.pop(0)
        self._progress.set(done=self._done, dropped=self._dropped)

    def missing(self) -> Optional[str]:
        """See `Channel.missing`."""
        names = self._dropped + [artifact for artifact, _ in self._left]
        if not names:
            return None
        return f"{', '.join(names)} missing: {self._why or 'the time limit was reached'}"


def list_files(submission: Submission) -> List[Tuple[str, str]]:
    """Artifact path and local path of each file to upload; the plan is written to its file here."""
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
