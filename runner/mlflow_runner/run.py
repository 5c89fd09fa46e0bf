"""A run from its first instruction to its reported end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Optional

from mlflow_runner import program
from mlflow_runner.causes import Cause
from mlflow_runner.ending import describe
from mlflow_runner.errors import RunnerError
from mlflow_runner.memory import oom_kills
from mlflow_runner.outcome import DELETED, REFUSED, TOLD, Outcome
from mlflow_runner.output import Output
from mlflow_runner.reporter import Reporter
from mlflow_runner.state import State
from mlflow_runner.submission import NETRC, RATTLER_AUTH, Submission
from mlflow_runner.supervise import Supervisor
from mlflow_runner.tracking import login

ATTEMPT = "MLFLOW_COMPUTE_ATTEMPT"
"""Tells the command whether it may find a checkpoint of its own: 1, then 2 and so on where the target has `retries`."""
CLEAN_S = 10.0
"""How long cleaning the cache may go on after the run's end has been told."""
TERMINATION_BYTES = 4096
INHERITED_RUN = "MLFLOW_COMPUTE_RUN_ID"
"""Names the run that a process belongs to, so that a project started from inside it is not taken for it."""


class Run:
    """One run: its phases in order, and what is known of them."""

    def __init__(self, submission: Submission, started_s: float):
        login.strip_variables(os.environ)
        self._submission = submission
        self._started_s = self._phase_start = started_s
        self._state = State(
            node=os.environ.get("MLFLOW_COMPUTE_NODE"),
            image=os.environ.get("MLFLOW_COMPUTE_IMAGE"),
            pod=os.environ.get("MLFLOW_COMPUTE_POD"),
            job_uid=os.environ.get("MLFLOW_COMPUTE_JOB_UID"),
            attempt=1 + int(os.environ.pop("MLFLOW_COMPUTE_FAILURES", "") or 0),
            phases=dict(submission.phases),
        )
        self._scratch = submission.scratch_dir
        os.makedirs(self._scratch, exist_ok=True)
        State.reserve(self._scratch)
        self._reporter = Reporter(self._scratch, on_stop=lambda: self._supervisor.stop())
        in_container_log = self._state.pod is not None
        self._output = Output(self._scratch, submission.log_backlog_bytes, self._reporter.wake, lines=in_container_log)
        self._made = False
        self._cleaner: Optional[subprocess.Popen] = None
        self._oom_kills = oom_kills()
        self._supervisor = Supervisor(self._output, submission.grace_period_s)

    def execute(self) -> int:
        try:
            self._prepare()
            code = self._run_command()
        except RunnerError as error:
            if self._supervisor.stopped_by is not None:
                return self._end_stopped(128 + self._supervisor.stopped_by)
            code = self._end("FAILED", exit_code=1, cause=error.cause, message=str(error))
        except Exception as error:  # a defect of ours must end the run too, and say so
            if self._supervisor.stopped_by is not None:
                return self._end_stopped(128 + self._supervisor.stopped_by)
            self._end("FAILED", exit_code=1, cause=Cause.RUNNER_ERROR, message=f"{type(error).__name__}: {error}")
            raise
        return code

    def _prepare(self):
        submission = self._submission
        archive = submission.archive
        path = archive and (archive.path or self._fetch_archive())
        if archive:
            from mlflow_runner.unpack import unpack

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
                tools = Tools(submission.cache_dir, self._scratch, self._supervisor, self._output.say, self._fetch_packages)
                spent = realise(submission.environment, tools)
                self._state.phases.update(spent)
                self._made = bool(spent)
            self._phase("environment")

    def _run_command(self) -> int:
        submission = self._submission
        if self._supervisor.stopped_by is not None:
            return self._end_stopped(128 + self._supervisor.stopped_by)
        if not shutil.which("bash"):
            raise RunnerError(Cause.ENVIRONMENT_ERROR, "There is no bash here, which MLflow runs commands with: use an image that has it.")
        try:
            exit_ = self._supervisor.run(self._command(), submission.project_dir, self._command_env(), on_start=self._started)
        except OSError as error:
            raise RunnerError(Cause.ENVIRONMENT_ERROR, f"The command could not be started: {error}.") from None
        self._phase("run")
        if self._supervisor.stopped_by is not None:
            return self._end_stopped(exit_.code)
        if exit_.code == 0:
            return self._end("FINISHED", 0)
        if exit_.code in submission.retry_on and self._state.attempt <= submission.retries:
            message = f"Attempt {self._state.attempt} exited with code {exit_.code}: the next one follows."
            return self._end("SCHEDULED", exit_.code, message=message)
        if oom_kills() > self._oom_kills:
            message = (
                "A process of the command was killed because the container's memory was used up. Raise 'resources.memory' in the target."
            )
            return self._end("FAILED", exit_.code, cause=Cause.OOM_KILLED, message=message)
        how = f"was killed by {_signal_name(exit_.signal)}" if exit_.signal else f"exited with code {exit_.code}"
        return self._end("FAILED", exit_.code, cause=Cause.EXIT_CODE, message=f"The command {how}: see the log's last lines.")

    def _started(self):
        self._phase("start")
        if self._made and self._submission.cache_limit_bytes is not None:
            self._clean_cache()
        self._state.started = True
        self._state.write(self._scratch)
        self._start_reporter()

    def _end_stopped(self, exit_code) -> int:
        outcome = self._reporter.outcome()
        if outcome and outcome.kind == REFUSED:
            return self._end("FAILED", exit_code or 1, cause=Cause.TRACKING_ERROR, message=_refused(outcome))
        if outcome and outcome.kind == DELETED:
            return self._end("KILLED", exit_code or 1, cause=Cause.CANCELLED, message="The run was deleted in MLflow.")
        number = self._supervisor.stopped_by
        name, exit_code = _signal_name(number), exit_code or 128 + number  # a stopped run is no success, though its command ended in order
        return self._end("KILLED", exit_code, cause=self._submission.stopped_means, message=f"The run was stopped by {name}.")

    def _end(self, status, exit_code, cause=None, message=None) -> int:
        state = self._state
        state.status, state.exit_code, state.cause, state.message = status, exit_code, cause, message
        self._write_termination_log(Outcome(TOLD, status, cause, message), reported=False)  # first: the next moment may be the pod's last
        self._output.say(describe(status, exit_code, cause, message))
        state.write(self._scratch)
        self._start_reporter()
        outcome = self._reporter.finish(self._submission, self._supervisor)
        if outcome.kind == REFUSED and cause != Cause.TRACKING_ERROR:
            return self._end("FAILED", exit_code or 1, cause=Cause.TRACKING_ERROR, message=_refused(outcome))
        self._say_farewell(outcome)
        self._output.close(timeout_s=5 if self._supervisor.stopped_by is None else 0.5)
        self._end_cleaning()
        time.sleep(max(0.0, self._started_s + self._submission.least_lifetime_s - time.monotonic()))
        return exit_code

    def _say_farewell(self, outcome: Outcome):
        """What came of reporting; the last line is the one that a waiting client looks for."""
        if outcome.kind == TOLD:
            self._write_termination_log(outcome, reported=True)
            if outcome.status != self._state.status:
                self._output.say(describe(outcome.status, self._state.exit_code, outcome.cause, outcome.message))
        elif outcome.kind == DELETED:
            self._output.say("the run was deleted in MLflow, which does not know its end")
        else:
            self._output.say("the tracking server does not know the run's end yet")
        self._output.say(f"run {self._submission.run_id} has ended {self._submission.mark}".rstrip())

    def _phase(self, name):
        now = time.monotonic()
        self._state.phases[name] = round(now - self._phase_start, 4)
        self._phase_start = now

    def _clean_cache(self):
        argv = program.command("clean", self._submission.cache_dir, str(self._submission.cache_limit_bytes))
        self._cleaner = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
        self._supervisor.adopt(self._cleaner, lambda _: None)

    def _end_cleaning(self):
        """It reads from the folder that goes with the run; a command that is shorter than it leaves it some time."""
        if self._cleaner:
            self._supervisor.wait_until(lambda: self._cleaner.returncode is not None, CLEAN_S, stops=True)
            if self._cleaner.returncode is None:
                self._cleaner.kill()

    def _start_reporter(self):
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
        env.setdefault("GIT_PYTHON_REFRESH", "quiet")  # mlflow uses GitPython, and few images have git
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
        self._fetch(f"runs:/{self._submission.run_id}/{self._submission.archive.artifact}", path, Cause.SNAPSHOT_ERROR)
        self._phase("fetch")
        return path

    def _fetch_packages(self, artifact, path):
        self._output.say("fetching the packages from the run's artifacts")
        self._fetch(f"runs:/{self._submission.run_id}/{artifact}", path, Cause.ENVIRONMENT_ERROR)

    def _fetch(self, uri, path, cause):
        env = dict(os.environ, MLFLOW_TRACKING_URI=self._submission.tracking_uri)
        env[login.CREDENTIAL_HOSTS] = ",".join(self._submission.credential_hosts)
        exit_ = self._supervisor.run(program.command("fetch", uri, path), os.path.dirname(sys.argv[0]) or ".", env)
        if exit_.code:
            raise RunnerError(cause, f"{uri} could not be downloaded: see the log.")

    def _write_termination_log(self, told: Outcome, reported: bool):
        """What `kubectl describe pod` shows, and what is left to tell the end when MLflow could not be."""
        if self._submission.termination_log:
            try:
                with open(self._submission.termination_log, "w") as file:
                    file.write(termination_message(told, self._state.exit_code, reported))
            except OSError:
                pass  # the log has it too


def termination_message(told: Outcome, exit_code: Optional[int], reported: bool) -> str:
    """The end as JSON, its message shortened to what the kubelet keeps whole (4096 bytes, or the JSON would be none)."""
    message = told.message or ""
    while True:
        known = {"status": told.status, "exit_code": exit_code, "cause": told.cause, "message": message, "reported": reported}
        text = json.dumps(known)
        if len(text) <= TERMINATION_BYTES or not message:
            return text
        message = message[: len(message) // 2]


def _refused(outcome: Outcome) -> str:
    return f"The tracking server refuses this run: {outcome.message}"


def _signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
