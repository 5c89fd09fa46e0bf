"""A run from its first instruction to its reported end."""

import os
import shutil
import subprocess
import sys
import time
from typing import Optional

from mlflow_runner.contract import tracking_variables
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.contract.state import State
from mlflow_runner.contract.submission import NETRC, RATTLER_AUTH, Submission
from mlflow_runner.log.output import Output
from mlflow_runner.processes import program
from mlflow_runner.processes.memory import oom_kills
from mlflow_runner.processes.supervise import Exit, Supervisor
from mlflow_runner.run.reporter import Reporter

ATTEMPT = "MLFLOW_COMPUTE_ATTEMPT"
"""Tells the command whether it may find a checkpoint of its own: 1, then 2 and so on where the
target has `retries`.
"""
CLEAN_S = 10.0
"""How long cleaning the cache may go on after the run's end has been told."""
INHERITED_RUN = "MLFLOW_COMPUTE_RUN_ID"
"""Names the run that a process belongs to, so that a project started from inside it is not taken
for it.
"""


class Run:
    """One run: its phases in order, and what is known of them."""

    def __init__(self, submission: Submission, started_s: float):
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
        self._made = False
        self._cleaner: Optional[subprocess.Popen] = None
        self._oom_kills = oom_kills()
        self._supervisor = Supervisor(self._output, submission.grace_period_s)

    def execute(self) -> int:
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
        except Exception as error:  # a defect of ours must end the run too, and say so
            self._closing().after_error(Cause.RUNNER_ERROR, f"{type(error).__name__}: {error}")
            raise
        return self._closing().after_exit(exit_, oom_kills() > self._oom_kills)

    def _closing(self):
        from mlflow_runner.run.closing import Closing

        return Closing(
            self._submission, self._state, self._output, self._reporter, self._supervisor
        )

    def _prepare(self):
        submission = self._submission
        archive = submission.archive
        path = archive and (archive.path or self._fetch_archive())
        if archive:
            from mlflow_runner.run.unpack import unpack

            unpack(path, archive.sha256, submission.unpack_dir)
            self._phase("unpack")
        if submission.downloads:
            self._start_reporter()
            for item in submission.downloads:
                self._output.say(f"downloading {item.uri}")
                self._fetch(item.uri, item.path, Cause.DOWNLOAD_ERROR)
            self._phase("download")
        if submission.environment:
            from mlflow_runner import environment

            if not environment.enter(submission.environment, submission.cache_dir):
                from mlflow_runner.environment.build import Tools
                from mlflow_runner.environment.realise import realise

                self._start_reporter()
                tools = Tools(
                    submission.cache_dir,
                    self._scratch,
                    self._supervisor,
                    self._output.say,
                    self._fetch_packages,
                )
                spent = realise(submission.environment, tools)
                self._state.phases.update(spent)
                self._made = bool(spent)
            self._phase("environment")

    def _run_command(self) -> Exit:
        if self._supervisor.stopped_by is not None:
            return Exit(128 + self._supervisor.stopped_by, None)
        if not shutil.which("bash"):
            raise RunnerError(
                Cause.ENVIRONMENT_ERROR,
                "There is no bash here, which MLflow runs commands with: use an image that has it.",
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
        self._phase("run")
        return exit_

    def _started(self):
        self._phase("start")
        if self._made and self._submission.cache_limit_bytes is not None:
            self._clean_cache()
        self._state.started = True
        self._start_reporter()

    def _phase(self, name):
        now = time.monotonic()
        self._state.phases[name] = round(now - self._phase_start, 4)
        self._phase_start = now

    def _clean_cache(self):
        argv = program.command(
            "clean", self._submission.cache_dir, str(self._submission.cache_limit_bytes)
        )
        self._cleaner = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
        )
        self._supervisor.adopt(self._cleaner, lambda _: None)

    def _end_cleaning(self):
        """It reads from the folder that goes with the run; a command that is shorter than it leaves
        it some time.
        """
        if self._cleaner:
            self._supervisor.wait_until(
                lambda: self._cleaner.returncode is not None, CLEAN_S, stops=True
            )
            if self._cleaner.returncode is None:
                self._cleaner.kill()

    def _start_reporter(self):
        self._state.write(self._scratch)  # the reporter tells an end even if this process is killed
        self._reporter.start(self._submission, self._supervisor)

    def _command_env(self) -> dict:
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

            env.update(environment.variables(submission.environment, self._prefix(), path))
        elif not shutil.which("python", path=path):
            env["PATH"] = f"{path}{os.pathsep}{self._python_command()}"
        return env

    def _command(self) -> list:
        if self._submission.environment:
            from mlflow_runner import environment

            return environment.command(self._prefix(), self._submission.command)
        return ["bash", "-c", self._submission.command]

    def _prefix(self) -> str:
        from mlflow_runner import environment

        return environment.prefix(self._submission.environment, self._submission.cache_dir)

    def _python_command(self) -> str:
        """A folder with the command `python`, for images that only have `python3` (Debian's)."""
        directory = os.path.join(self._scratch, "bin")
        os.makedirs(directory, exist_ok=True)
        wrapper = os.path.join(directory, "python")
        with open(wrapper, "w") as file:
            file.write(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        os.chmod(wrapper, 0o755)
        return directory

    def _fetch_archive(self) -> str:
        path = os.path.join(self._scratch, "snapshot.tar.gz")
        self._output.say("fetching the snapshot from the run's artifacts")
        self._fetch(
            f"runs:/{self._submission.run_id}/{self._submission.archive.artifact}",
            path,
            Cause.SNAPSHOT_ERROR,
        )
        self._phase("fetch")
        return path

    def _fetch_packages(self, artifact, path):
        self._output.say("fetching the packages from the run's artifacts")
        self._fetch(f"runs:/{self._submission.run_id}/{artifact}", path, Cause.ENVIRONMENT_ERROR)

    def _fetch(self, uri, path, cause):
        env = dict(os.environ, MLFLOW_TRACKING_URI=self._submission.tracking_uri)
        env[tracking_variables.CREDENTIAL_HOSTS] = ",".join(self._submission.credential_hosts)
        exit_ = self._supervisor.run(
            program.command("fetch", uri, path), os.path.dirname(sys.argv[0]) or ".", env
        )
        if exit_.code:
            raise RunnerError(cause, f"{uri} could not be downloaded: see the log.")
