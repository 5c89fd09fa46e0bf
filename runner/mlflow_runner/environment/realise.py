"""Have an environment ready: made once per key and cache, however many runs need it at once."""

import os
import sys
from typing import Dict

from mlflow_runner import environment as environments
from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.contract.machines import subdir
from mlflow_runner.contract.submission import Environment
from mlflow_runner.environment import Place
from mlflow_runner.environment.build import Build, Tools, full
from mlflow_runner.environment.cache import Building
from mlflow_runner.environment.remove import remove, writable


def realise(environment: Environment, tools: Tools) -> Dict[str, float]:
    """Hold the environment, made if it is not there; the seconds that each part took, none where
    another run made it.

    Raises RunnerError when it cannot be made.
    """
    own = subdir(sys.platform, os.uname().machine)
    if environment.platform != own:
        raise RunnerError(
            Cause.ENVIRONMENT_ERROR,
            f"The environment was locked for {environment.platform}, and this is {own}: set "
            "'platform' in the target.",
        )
    place = Place(environments.prefix(environment, tools.cache_dir))
    try:
        os.makedirs(os.path.dirname(place.path), exist_ok=True)
        spent: Dict[str, float] = {}
        while not environments.enter(environment, tools.cache_dir):
            spent = _make_alone(environment, place, tools)
        return spent
    except PermissionError as error:
        raise RunnerError(
            Cause.ENVIRONMENT_ERROR,
            f"The cache {tools.cache_dir} cannot be written by user {os.getuid()}: {error}: see "
            "'cache' of the target.",
        ) from None
    except OSError as error:
        why = full(tools.cache_dir, str(error).encode()) or (
            f"The environment could not be made in {tools.cache_dir}: {error}."
        )
        raise RunnerError(Cause.ENVIRONMENT_ERROR, why) from None


def _make_alone(environment: Environment, place: Place, tools: Tools) -> Dict[str, float]:
    """Hold the lock alone, and make what is still missing then."""
    if not place.try_alone():
        waits_for = (
            "another run that is making the same environment"
            if place.state() == "missing"
            else "the runs that use the environment"
        )
        tools.say(f"waiting for {waits_for}")
        _wait_alone(place, tools)
    try:
        state = place.state()
        if state == "ready":
            return {}
        if state == "changed":
            tools.say(
                f"environment {environment.key[:12]} was changed or damaged in the cache: making "
                "it again"
            )
        return _make(environment, place, tools)
    finally:
        place.release()


def _wait_alone(place: Place, tools: Tools) -> None:
    """A child waits for the lock: it is held by the open file, which is ours too, and the child can
    be stopped.
    """
    wait = f"import fcntl; fcntl.flock({place.fd}, fcntl.LOCK_EX)"
    tools.supervisor.run(
        [sys.executable, "-I", "-c", wait], "/", dict(os.environ), pass_fds=(place.fd,)
    )
    if tools.supervisor.stopped_by is not None:
        raise RunnerError(
            Cause.ENVIRONMENT_ERROR, "The run was stopped while it waited for its environment."
        )


def _make(environment: Environment, place: Place, tools: Tools) -> Dict[str, float]:
    name = f"environment {environment.key[:12]}"
    counts = [
        f"{number} {kind}"
        for number, kind in ((environment.conda, "conda"), (environment.pip, "Python"))
        if number
    ]
    tools.say(f"{name}: making it of {' and '.join(counts) or 'no'} packages")
    if os.path.lexists(place.marker):
        os.unlink(place.marker)
    remove(place.path)
    with Building(tools.cache_dir):
        spent = Build(environment, place, tools).make()
        place.seal(_protect(place.path))
    tools.say(f"{name}: ready after {sum(spent.values()):.1f} s")
    return spent


def _protect(path: str) -> Dict[str, int]:
    """Make folders read-only that a `pip install` of some run would change; times of change (ns) by
    path in the environment.
    """
    folders = writable(path)
    for name in folders:
        target = os.path.join(path, name)
        if os.path.basename(name) == "site-packages":
            # byte code may still be added
            os.makedirs(os.path.join(target, "__pycache__"), exist_ok=True)
        os.chmod(target, 0o555)
    made_by_installer = [
        name for name in ("conda-meta", "pyvenv.cfg") if os.path.exists(os.path.join(path, name))
    ]
    return {
        name: os.stat(os.path.join(path, name)).st_mtime_ns
        for name in (*folders, *made_by_installer)
    }
