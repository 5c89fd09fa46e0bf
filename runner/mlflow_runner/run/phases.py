"""A run from its first instruction to its reported end."""

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence

from mlflow_runner.contract import tracking_variables
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.contract.state import State
from mlflow_runner.contract.submission import (
    NETRC,
    RATTLER_AUTH,
    Archive,
    Download,
    Environment,
    Submission,
)
from mlflow_runner.log.output import Output
from mlflow_runner.processes import program
from mlflow_runner.processes.memory import count_oom_kills
from mlflow_runner.processes.supervise import Exit, Supervisor
from mlflow_runner.run.reporter import Reporter

if TYPE_CHECKING:
    from mlflow_runner.run.closing import Closing

ATTEMPT = "MLFLOW_COMPUTE_ATTEMPT"
"""Tells the command whether an earlier attempt may have left a checkpoint: 1, then 2 and so on
where the target has `retries`.
"""
CLEAN_S = 10.0
"""How long cleaning the cache may continue after the run's end has been reported."""
EXECUTABLE = 0o755
INHERITED_RUN = "MLFLOW_COMPUTE_RUN_ID"
"""Names the run that a process belongs to, so that a project started by the command gets a run of
its own.
"""


class Run:
    """One run: its phases in order, and its state."""

    def __init__(self, submission: Submission, started_s: float) -> None:
        tracking_variables.strip(os.environ)
        self._submission = submission
        self._started_s = self._phase_start = started_s
        index = int(os.environ.get("JOB_COMPLETION_INDEX") or 0)
        self._state = State(
            node=os.environ.get("MLFLOW_COMPUTE_NODE"),
            image=os.environ.get("MLFLOW_COMPUTE_IMAGE"),
            pod=os.environ.get("MLFLOW_COMPUTE_POD"),
            job_uid=os.environ.get("MLFLOW_COMPUTE_JOB_UID"),
            attempt=1 + int(os.environ.pop("MLFLOW_COMPUTE_FAILURES", "") or 0),
            index=index,
            speaks=submission.topology.reports(index),
            phases=dict(submission.phases),
        )
        self._scratch = submission.scratch_dir
        os.makedirs(self._scratch, exist_ok=True)
        State.reserve(self._scratch)
        self._reporter = Reporter(self._scratch, on_stop=lambda: self._supervisor.stop())
        in_container_log = self._state.pod is not None
        self._output = Output(
            self._scratch, submission.log_backlog_bytes, self._reporter.wake, lines=in_container_log
        )
        self._built = False
        self._cleaner: Optional[subprocess.Popen[bytes]] = None
        self._oom_kills = count_oom_kills()
        self._supervisor = Supervisor(self._output, submission.grace_period_s)

    def execute(self) -> int:
        """Run all phases and report the end; the exit code of the runner."""
        try:
            return self._execute()
        finally:
            self._end_cleaning()
            time.sleep(
                max(0.0, self._started_s + self._submission.least_lifetime_s - time.monotonic())
            )

    def _execute(self) -> int:
        try:
            self._prepare()
            exit_ = self._run_command()
        except RunnerError as error:
            return self._closing().after_error(error.cause, str(error))
        except Exception as error:  # a bug in the runner: the run must end, with a reason
            self._closing().after_error(Cause.RUNNER_ERROR, f"{type(error).__name__}: {error}")
            raise
        return self._closing().after_exit(exit_, count_oom_kills() > self._oom_kills)

    def _closing(self) -> "Closing":
        from mlflow_runner.run.closing import Closing

        return Closing(
            self._submission, self._state, self._output, self._reporter, self._supervisor
        )

    def _prepare(self) -> None:
        submission = self._submission
        if submission.archive:
            self._unpack(submission.archive, submission.unpack_dir or submission.project_dir)
        if submission.downloads:
            self._download(submission.downloads)
        if submission.environment:
            self._enter(submission.environment)

    def _unpack(self, archive: Archive, directory: str) -> None:
        path = archive.path or self._fetch_archive(archive)
        from mlflow_runner.run.unpack import unpack

        unpack(path, archive.sha256, directory)
        self._end_phase("unpack")

    def _download(self, downloads: Sequence[Download]) -> None:
        self._start_reporter()
        for item in downloads:
            self._output.say(f"downloading {item.uri}")
            self._fetch(item.uri, item.path, Cause.DOWNLOAD_ERROR)
        self._end_phase("download")

    def _enter(self, environment: Environment) -> None:
        from mlflow_runner import environment as environments

        cache_dir = self._submission.cache_dir
        if not environments.enter(environment, cache_dir):
            from mlflow_runner.environment.build import Tools
            from mlflow_runner.environment.realise import realise

            self._start_reporter()
            tools = Tools(
                cache_dir, self._scratch, self._supervisor, self._output.say, self._fetch_packages
            )
            spent = realise(environment, tools)
            self._state.phases.update(spent)
            self._built = bool(spent)
        self._end_phase("environment")

    def _run_command(self) -> Exit:
        if self._supervisor.stopped_by is not None:
            return Exit(128 + self._supervisor.stopped_by, None)
        if not shutil.which("bash"):
            raise RunnerError(
                Cause.ENVIRONMENT_ERROR,
                "bash is not installed, and MLflow runs commands with it: use an image that has "
                "bash.",
            )
        try:
            exit_ = self._supervisor.run(
                self._command(),
                self._submission.project_dir,
                self._command_env(),
                on_start=self._started,
            )
        except OSError as error:
            raise RunnerError(
                Cause.ENVIRONMENT_ERROR, f"The command could not be started: {error}."
            ) from None
        self._end_phase("run")
        return exit_

    def _started(self) -> None:
        self._end_phase("start")
        if self._built and self._submission.cache_limit_bytes is not None:
            self._clean_cache(self._submission.cache_limit_bytes)
        self._state.started = True
        self._start_reporter()

    def _end_phase(self, name: str) -> None:
        now = time.monotonic()
        self._state.phases[name] = round(now - self._phase_start, 4)
        self._phase_start = now

    def _clean_cache(self, limit_bytes: int) -> None:
        argv = program.command("clean", self._submission.cache_dir, str(limit_bytes))
        self._cleaner = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
        )
        self._supervisor.adopt(self._cleaner, lambda _: None)

    def _end_cleaning(self) -> None:
        """Give the cleaner some time after a short command, then kill it: its zip is removed with
        the run's folder.
        """
        cleaner = self._cleaner
        if cleaner:
            self._supervisor.wait_until(lambda: cleaner.returncode is not None, CLEAN_S, stops=True)
            if cleaner.returncode is None:
                cleaner.kill()

    def _start_reporter(self) -> None:
        # the reporter reports an end even if this process is killed
        self._state.write(self._scratch)
        self._reporter.start(self._submission, self._supervisor)

    def _command_env(self) -> Dict[str, str]:
        submission = self._submission
        env = dict(os.environ)
        env.update(
            MLFLOW_TRACKING_URI=submission.tracking_uri,
            MLFLOW_RUN_ID=submission.run_id,
            MLFLOW_EXPERIMENT_ID=submission.experiment_id,
            PYTHONUNBUFFERED="1",
        )
        env[INHERITED_RUN] = submission.run_id
        env[ATTEMPT] = str(self._state.attempt)
        # mlflow uses GitPython, and few images have git
        env.setdefault("GIT_PYTHON_REFRESH", "quiet")
        path = env.get("PATH", os.defpath)
        for name in (NETRC, RATTLER_AUTH):
            env.pop(name, None)
        if submission.environment:
            from mlflow_runner import environment

            prefix = environment.prefix(submission.environment, submission.cache_dir)
            env.update(environment.variables(submission.environment, prefix, path))
        elif not shutil.which("python", path=path):
            env["PATH"] = f"{path}{os.pathsep}{self._make_python_command()}"
        return env

    def _command(self) -> List[str]:
        submission = self._submission
        if submission.environment:
            from mlflow_runner import environment

            prefix = environment.prefix(submission.environment, submission.cache_dir)
            return environment.command(prefix, submission.command)
        return ["bash", "-c", submission.command]

    def _make_python_command(self) -> str:
        """A folder with the command `python`, for images that only have `python3` (Debian's)."""
        directory = os.path.join(self._scratch, "bin")
        os.makedirs(directory, exist_ok=True)
        wrapper = os.path.join(directory, "python")
        with open(wrapper, "w") as file:
            file.write(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        os.chmod(wrapper, EXECUTABLE)
        return directory

    def _fetch_archive(self, archive: Archive) -> str:
        path = os.path.join(self._scratch, "snapshot.tar.gz")
        self._output.say("downloading the snapshot from the run's artifacts")
        self._fetch(
            f"runs:/{self._submission.run_id}/{archive.artifact}", path, Cause.SNAPSHOT_ERROR
        )
        self._end_phase("fetch")
        return path

    def _fetch_packages(self, artifact: str, path: str) -> None:
        self._output.say("downloading the packages from the run's artifacts")
        self._fetch(f"runs:/{self._submission.run_id}/{artifact}", path, Cause.ENVIRONMENT_ERROR)

    def _fetch(self, uri: str, path: str, cause: Cause) -> None:
        """Download `uri` to `path` in a child process. Raises RunnerError(cause)."""
        env = dict(os.environ, MLFLOW_TRACKING_URI=self._submission.tracking_uri)
        env[tracking_variables.CREDENTIAL_HOSTS] = ",".join(self._submission.credential_hosts)
        exit_ = self._supervisor.run(
            program.command("fetch", uri, path), os.path.dirname(sys.argv[0]) or ".", env
        )
        if exit_.code:
            raise RunnerError(cause, f"{uri} could not be downloaded: see the log.")
