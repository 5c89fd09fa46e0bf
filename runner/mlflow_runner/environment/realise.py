"""Make an environment ready: built once per key and cache, however many runs need it at once."""

import os
import sys
from typing import Dict

from mlflow_runner import environment as environments
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.contract.machines import subdir
from mlflow_runner.contract.submission import Environment
from mlflow_runner.environment import Slot
from mlflow_runner.environment.build import Build, Tools, describe_full_volume
from mlflow_runner.environment.cache import hold_packages
from mlflow_runner.environment.remove import list_writable, remove

READ_ONLY = 0o555


def realise(environment: Environment, tools: Tools) -> Dict[str, float]:
    """Enter the environment, built if it is missing; the seconds of each step, empty if another run
    built it.

    Raises RunnerError when it cannot be built.
    """
    own = subdir(sys.platform, os.uname().machine)
    if environment.platform != own:
        raise RunnerError(
            Cause.ENVIRONMENT_ERROR,
            f"The environment is locked for {environment.platform}, but this machine is {own}: set "
            "'platform' in the target.",
        )
    slot = Slot(environments.prefix(environment, tools.cache_dir))
    spent: Dict[str, float] = {}
    try:
        os.makedirs(os.path.dirname(slot.path), exist_ok=True)
        while not environments.enter(environment, tools.cache_dir):
            spent = _build_exclusively(environment, slot, tools)
    except PermissionError as error:
        raise RunnerError(
            Cause.ENVIRONMENT_ERROR,
            f"The cache {tools.cache_dir} is not writable for user {os.getuid()}: {error}: see "
            "'cache' of the target.",
        ) from None
    except OSError as error:
        message = describe_full_volume(tools.cache_dir, str(error).encode()) or (
            f"The environment could not be built in {tools.cache_dir}: {error}."
        )
        raise RunnerError(Cause.ENVIRONMENT_ERROR, message) from None
    return spent


def _build_exclusively(environment: Environment, slot: Slot, tools: Tools) -> Dict[str, float]:
    """Take the exclusive lock, and build the environment unless it is ready by then."""
    if not slot.try_exclusive():
        holder = (
            "another run that is building the same environment"
            if slot.state() == "missing"
            else "the runs that use the environment"
        )
        tools.say(f"waiting for {holder}")
        _wait_for_lock(slot, tools)
    try:
        state = slot.state()
        if state == "ready":
            return {}
        if state == "changed":
            tools.say(
                f"environment {environment.key[:12]} was modified or damaged in the cache: "
                "building it again"
            )
        return _build(environment, slot, tools)
    finally:
        slot.release()


def _wait_for_lock(slot: Slot, tools: Tools) -> None:
    """Wait in a child process, which a stop of the run can end: the lock belongs to the open file,
    which the runner shares.

    Raises RunnerError after a stop.
    """
    wait = f"import fcntl; fcntl.flock({slot.fd}, fcntl.LOCK_EX)"
    tools.supervisor.run(
        [sys.executable, "-I", "-c", wait], "/", dict(os.environ), pass_fds=(slot.fd,)
    )
    if tools.supervisor.stopped_by is not None:
        raise RunnerError(
            Cause.ENVIRONMENT_ERROR, "The run was stopped while it waited for its environment."
        )


def _build(environment: Environment, slot: Slot, tools: Tools) -> Dict[str, float]:
    name = f"environment {environment.key[:12]}"
    counts = [
        f"{number} {kind}"
        for number, kind in ((environment.conda, "conda"), (environment.pip, "Python"))
        if number
    ]
    tools.say(f"{name}: building it from {' and '.join(counts) or 'no'} packages")
    if os.path.lexists(slot.marker):
        os.unlink(slot.marker)
    remove(slot.path)
    with hold_packages(tools.cache_dir):
        spent = Build(environment, slot, tools).run()
        slot.seal(_protect(slot.path))
    tools.say(f"{name}: ready after {sum(spent.values()):.1f} s")
    return spent


def _protect(path: str) -> Dict[str, int]:
    """Make the folders read-only that a `pip install` of a run would change; modification times
    (ns) by path in the environment.
    """
    folders = list_writable(path)
    for name in folders:
        target = os.path.join(path, name)
        if os.path.basename(name) == "site-packages":
            # byte code may still be added
            os.makedirs(os.path.join(target, "__pycache__"), exist_ok=True)
        os.chmod(target, READ_ONLY)
    made_by_installer = [
        name for name in ("conda-meta", "pyvenv.cfg") if os.path.exists(os.path.join(path, name))
    ]
    return {
        name: os.stat(os.path.join(path, name)).st_mtime_ns
        for name in (*folders, *made_by_installer)
    }
