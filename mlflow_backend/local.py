"""A run on this machine: the same runner as in a pod, as a child process."""

import codecs
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from mlflow.projects.submitted_run import SubmittedRun

from mlflow_backend import project as projects
from mlflow_backend import runner_zip, snapshot, tracking
from mlflow_backend.config.backend_config import BackendConfig
from mlflow_backend.environment import index_access, locks, platforms
from mlflow_backend.errors import SnapshotError
from mlflow_backend.progress import Progress
from mlflow_backend.project import Project
from mlflow_runner.submission import TAG_ENVIRONMENT, TAG_TARGET, Download, Submission

CACHE_BYTES = 50_000_000_000
"""Environments and packages of runs on this machine, before the least recently used ones are removed."""
KEPT_BYTES = 20_000_000
"""A run here does not need the archive, so it must not wait long for it: this much takes about a second."""


def submit(config: BackendConfig, project: Project, experiment_id: str, client_uri: str, progress: Progress) -> "LocalRun":
    """Start the project in its own folder and return without waiting for it.

    Raises ComputeError before anything is created.
    """
    scratch = _scratch_dir(config.storage_dir)
    try:
        placed, downloads = _place_inputs(project, scratch)
        command = projects.command(project, placed)
        kept = None
        if config.builds_environment:
            kept = locks.obtain(project.work_dir, project.environment_files, platforms.of_this_machine(), progress)
        environment = kept and kept.environment
        run_id = tracking.given_run_id(os.environ, config.run_id)
        run = tracking.create_run(project, experiment_id, run_id)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    try:
        tracking.tag(run.info.run_id, {TAG_TARGET: "local", **({TAG_ENVIRONMENT: environment.key} if environment else {})})
        tracking.schedule(run.info.run_id)
        tracking_uri, credentials = tracking.split_credentials(tracking.uri_for_here(client_uri))
        submission = Submission(
            run_id=run.info.run_id,
            experiment_id=str(run.info.experiment_id),
            tracking_uri=tracking_uri,
            command=command,
            project_dir=str(project.work_dir),
            scratch_dir=str(scratch),
            cache_dir=str(locks.cache_dir()),
            keep_archive=_keep_code(project, scratch, progress),
            downloads=downloads,
            environment=environment,
            cache_limit_bytes=CACHE_BYTES,
            phases=(("solve", kept.solved_s),) if kept and kept.solved_s else (),
        )
        process = _start(submission, credentials | (_access(kept, scratch) if kept else {}))
    except BaseException as error:
        tracking.fail(run.info.run_id, error)
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    if url := tracking.run_url(client_uri, run.info.experiment_id, run.info.run_id):
        progress.say(f"run {url}")
    return LocalRun(run.info.run_id, process, config.STREAM_OUTPUT, progress, scratch, project)


def _scratch_dir(storage_dir: str | None) -> Path:
    """A folder of the run's own, below `storage_dir` (the option --storage-dir) if that is given."""
    if storage_dir:
        os.makedirs(storage_dir, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="mlflow-compute-", dir=storage_dir))


def _place_inputs(project: Project, scratch: Path) -> tuple[dict[str, str], tuple[Download, ...]]:
    """Local files stay where they are; what is remote is downloaded below `scratch`."""
    placed, downloads = {}, []
    for parameter in projects.file_parameters(project):
        path = str(parameter.local or scratch / "inputs" / parameter.name / projects.base_name(parameter.value))
        placed[parameter.name] = parameter.placed(path)
        if parameter.local is None:
            downloads.append(Download(parameter.value, path))
    return placed, tuple(downloads)


def _keep_code(project: Project, scratch: Path, progress: Progress) -> str | None:
    """An archive of the code for the run's artifacts; a project too large for that still runs here."""
    try:
        listing = snapshot.project_files(project.work_dir)
        if listing.size_bytes > KEPT_BYTES:
            raise SnapshotError(f"{listing.size_bytes / 1e6:.0f} MB are too many; name what is no code in .mlflowignore")
        taken = snapshot.take(listing, {})
    except SnapshotError as error:
        progress.say(f"the code is not kept with the run: {error}")
        return None
    kept = shutil.move(taken.path, scratch / snapshot.FILE_NAME)
    taken.discard()
    return str(kept)


def _access(kept: locks.Kept, scratch: Path) -> dict[str, str]:
    """Variables that lead the runner to package indexes: files that only this user can read."""
    found = {}
    for name, content in kept.secrets().items():
        path = scratch / name.lower()
        path.touch(mode=0o600)
        path.write_bytes(content)
        found[name] = str(path)
    if bundle := index_access.own_ca_bundle():
        found["SSL_CERT_FILE"] = bundle
    return found


def _start(submission: Submission, credentials: Mapping[str, str]) -> subprocess.Popen:
    scratch = Path(submission.scratch_dir)
    runner, text = scratch / "runner.pyz", scratch / "run.json"
    runner.write_bytes(runner_zip.build())
    text.write_text(submission.to_json())
    here = os.path.dirname(sys.executable)  # `python` is the one that runs us, in an activated environment or not
    env = {
        **os.environ,
        **credentials,
        "PATH": here + os.pathsep + os.environ.get("PATH", os.defpath),
        "MLFLOW_COMPUTE_NODE": socket.gethostname(),
    }
    if env.get("MPLBACKEND", "").startswith("module://"):
        del env["MPLBACKEND"]  # a notebook's own, which the project's environment need not have
    return subprocess.Popen(
        [sys.executable, str(runner), "run", str(text)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=env,
        start_new_session=True,  # Ctrl-C is ours to pass on, once
    )


class LocalRun(SubmittedRun):
    """A run whose runner is a child of this process. Its output is kept until `wait` shows it."""

    def __init__(self, run_id: str, process: subprocess.Popen, stream: bool, progress: Progress, scratch: Path, project: Project):
        super().__init__()
        self._run_id = run_id
        self._process = process
        self._progress = progress
        self._stream = stream
        self._scratch = scratch
        self._project = project
        self._cancelled = False
        self._reader = threading.Thread(target=self._copy_output, daemon=True)
        self._reader.start()

    @property
    def run_id(self) -> str:
        return self._run_id

    def wait(self) -> bool:
        """True if the run FINISHED. The runner has told MLflow before it ends."""
        code = self._process.wait()
        self._reader.join(5)
        if code < 0:
            self._settle(code)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._project.discard()
        return code == 0

    def get_status(self) -> str:
        from mlflow.tracking import MlflowClient

        return MlflowClient().get_run(self._run_id).info.status

    def cancel(self) -> None:
        """Stop the command and wait until the run is KILLED in MLflow."""
        self._cancelled = True
        if self._process.poll() is None:
            self._process.terminate()
        self.wait()

    def _settle(self, code: int) -> None:
        """The runner was killed before it could tell the run's end: tell it in its place."""
        if self._cancelled:
            tracking.end(self._run_id, "KILLED", "Cancelled", "The run was cancelled before its command was started.", 128 - code)
        else:
            tracking.end(self._run_id, "FAILED", "RunnerLost", "The runner was killed from outside.", 128 - code)

    def _copy_output(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while block := self._process.stdout.read1(65536):
            if self._stream:
                self._progress.output(decoder.decode(block))
