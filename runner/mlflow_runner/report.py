"""The reporter: brings what the supervisor left on disk to MLflow, for as long as that takes.

It reads the spool and `state.json` and keeps in memory only how far it has
come, so it can be killed and started again. Its standard input tells it that
something is new (`d`) or that the run has ended (`e`); the end of it means that
the supervisor is gone.
"""

import os
import select
import sys
import time
from pathlib import Path
from typing import Optional

from mlflow_runner.causes import Cause
from mlflow_runner.ending import TERMINAL, ending, is_superseded
from mlflow_runner.reporter import REFUSED
from mlflow_runner.spool import SpoolReader
from mlflow_runner.state import State
from mlflow_runner.submission import (
    CONDA_LOCK,
    END_TAGS,
    PYLOCK,
    TAG_ATTEMPT,
    TAG_CAUSE,
    TAG_IMAGE,
    TAG_NODE,
    TAG_POD,
    Submission,
)
from mlflow_runner.supervise import PREFIX
from mlflow_runner.tracking import NeedsMlflow, Refused, Unavailable, connect

FLUSH_INTERVAL_S = 2.0
PART_BYTES = 512 * 1024
"""A log part that has reached this size is never sent again; an open one is sent anew at each flush."""
READ_BYTES = 8 * 1024 * 1024
MAX_BACKOFF_S = 15.0


def main(arguments) -> int:
    """Report the run whose Submission is in the file `arguments[0]`, beside its spool and state."""
    path = Path(arguments[0])
    try:
        return Report(Submission.from_json(path.read_text()), path.parent).follow()
    except Refused as error:
        _say(f"the tracking server refuses this run: {error}")
        (path.parent / REFUSED).write_text(str(error))
        return 1


class Report:
    """How far the reporting of one run has come."""

    def __init__(self, submission: Submission, directory: Path):
        self._submission = submission
        self._directory = directory
        self._run = None
        self._running_told = False
        self._files = _files_to_keep(submission)
        self._log = LogParts(directory, time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime()))
        self._ended = False
        self._orphaned = False
        self._failures = 0
        self._accepted = False
        self._give_up_at: Optional[float] = None

    def follow(self) -> int:
        """Report until the end is known to the server; 0 then, 1 when it could not be told in time.

        Raises Refused when the server wants nothing to do with this run from the beginning.
        """
        while True:
            state = self._state()
            if self._attempt(state) and state.status:
                return 0
            if self._give_up_at is not None and time.monotonic() > self._give_up_at:
                return 1
            self._wait()

    def _attempt(self, state) -> bool:
        try:
            self._pass(state)
        except (Unavailable, Refused) as error:
            if isinstance(error, Refused) and not self._accepted:
                raise
            self._failures += 1
            if self._failures == 1:
                _say(f"the tracking server does not answer, will keep trying: {error}")
            return False
        except NeedsMlflow as error:
            self._give_way_to_environment(error)
        if self._failures:
            _say("the tracking server answers again")
        self._failures = 0
        self._accepted = True
        return True

    def _state(self) -> State:
        state = State.read(self._directory)
        if self._orphaned and not state.status:
            state.status, state.exit_code, state.cause = "FAILED", 137, Cause.RUNNER_LOST
            state.message = "The runner was killed before the command ended."
        return state

    def _pass(self, state):
        if self._run is None:
            self._run = connect(self._submission.tracking_uri, self._submission.run_id)
        if not self._running_told and state.started and not state.status:
            self._tell_running(state)
            self._running_told = True
        self._log.ship(self._run, closing=bool(state.status))
        while self._files:
            self._run.upload_file(*self._files[0])
            self._files.pop(0)
        if state.status:
            self._tell_end(state)

    def _tell_running(self, state):
        found = self._run.get()
        told = found.tags.get(TAG_CAUSE)
        if is_superseded(found, state) or (found.status == "KILLED" and told != Cause.TERMINATED):
            return  # by a later pod, or cancelled before it began
        self._run.remove_tags([tag for tag in END_TAGS if tag in found.tags])  # of an earlier pod of this Job
        self._run.log(self._place(state), {})
        self._run.set_status("RUNNING", ended=False)

    def _tell_end(self, state):
        found = self._run.get()
        end = ending(found, state)
        if end is None:
            _say("another pod has taken this run over: its end is not this one's")
            return
        self._run.log({**self._place(state), **end.tags}, {f"compute/{name}_s": value for name, value in state.phases.items()})
        self._run.remove_tags([tag for tag in end.remove if tag in found.tags])
        self._run.set_status(end.status, ended=end.status in TERMINAL)

    @staticmethod
    def _place(state):
        attempt = str(state.attempt) if state.attempt > 1 else None
        known = ((TAG_NODE, state.node), (TAG_IMAGE, state.image), (TAG_POD, state.pod), (TAG_ATTEMPT, attempt))
        return {tag: value for tag, value in known if value}

    def _wait(self):
        """Sleep until there is something to do: news and the flush interval over, the end, or time to retry."""
        delay = min(MAX_BACKOFF_S, 2.0 ** (self._failures - 1)) if self._failures else None
        flush_at = time.monotonic() + (delay or FLUSH_INTERVAL_S)
        news = delay is not None
        while True:
            remaining = max(0.0, flush_at - time.monotonic()) if news else None
            stdin = [] if self._orphaned else [0]
            if not select.select(stdin, [], [], remaining)[0]:
                return
            data = os.read(0, 65536)
            news = True
            if not data:
                self._orphaned = True
            if (not data or b"e" in data) and not self._ended:
                self._ended = True
                self._give_up_at = time.monotonic() + self._submission.report_timeout_s
                return

    def _give_way_to_environment(self, error):
        """Go on as the environment's Python, which has mlflow when this one has not."""
        environment = self._submission.environment
        if environment:
            from mlflow_runner.environment import prefix

            python = os.path.join(prefix(environment, self._submission.cache_dir), "bin", "python")
            if os.path.exists(python) and python != sys.executable:
                os.execv(python, [python, *sys.argv])
        _say(f"nothing can be reported: {error}; use an image made from runner/Dockerfile")
        sys.exit(1)


def _files_to_keep(submission):
    """Artifact path and local path of what shows later how the run was made: its code and the lock of its environment."""
    files = [("code/snapshot.tar.gz", submission.keep_archive)] if submission.keep_archive else []
    if submission.environment:
        for name in (CONDA_LOCK, PYLOCK):
            path = os.path.join(submission.environment.lock_dir, name)
            if os.path.exists(path):
                files.append((f"environment/{name}", path))
    return files


class LogParts:
    """The spool as numbered artifacts `logs/STAMP.0000.txt`, each ending at the end of a line."""

    def __init__(self, directory, stamp: str):
        self._reader = SpoolReader(directory)
        self._stamp = stamp
        self._number = 0
        self._sent_bytes = 0

    def ship(self, run, closing: bool) -> None:
        """Send all that is new; the part that is still open is sent as a whole each time."""
        while True:
            chunk = self._reader.peek(READ_BYTES)
            if len(chunk.data) == self._sent_bytes and not (chunk.lost or chunk.closed):
                return
            note = f"{PREFIX}{chunk.lost} bytes of output left out here\n".encode() if chunk.lost else b""
            full = len(chunk.data) >= PART_BYTES
            length = _line_end(chunk.data) if full else len(chunk.data)
            run.upload(f"logs/{self._stamp}.{self._number:04d}.txt", note + chunk.data[:length])
            if not (full or chunk.lost or chunk.closed):
                self._sent_bytes = length
                return
            self._reader.advance(chunk, length)
            self._number += 1
            self._sent_bytes = 0
            if not (closing or chunk.closed) and len(chunk.data) < READ_BYTES:
                return


def _line_end(data: bytes) -> int:
    """Just behind the last line end, or all of it when there is none."""
    return data.rfind(b"\n") + 1 or len(data)


def _say(text):
    sys.stderr.write(f"{PREFIX}{text}\n")
    sys.stderr.flush()
