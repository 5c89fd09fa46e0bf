"""Solve match specs with rattler, in a separate process: plain repodata takes 2 GB of memory while
it is solved, and a crash of native code must not end the client.
"""

import difflib
import importlib.machinery
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mlflow_backend.environment import cache
from mlflow_backend.environment.indexes import index_access
from mlflow_backend.environment.indexes.conda_channels import CondaSettings, without_credentials
from mlflow_backend.environment.lock_files.lock import CondaPackage
from mlflow_backend.environment.parsers.spec import Spec, split_entry
from mlflow_backend.environment.permissions import HERE
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.environment.solvers import rattler_solve
from mlflow_backend.errors import EnvironmentSpecError, redact
from mlflow_runner.contract.submission import RATTLER_AUTH

POPULAR_CHANNELS = (
    "conda-forge",
    "bioconda",
    "defaults",
    "pytorch",
    "nvidia",
    "anaconda",
    "main",
    "r",
    "rapidsai",
)
MOST_LINES = 10

log = logging.getLogger(__name__)


class Problem(NamedTuple):
    """Why there is no solution, as `rattler_solve` says it.

    `kind` is `channel`, `match spec`, `unsolvable` or `other`; `names` are all packages of the
    channels, `versions` those of the requested packages in ascending order.
    """

    kind: str
    text: str
    names: Sequence[str] = ()
    versions: Mapping[str, Sequence[str]] = {}


def solve(
    spec: Spec, platform: Platform, settings: CondaSettings, refresh: bool = False
) -> tuple[CondaPackage, ...]:
    """The packages of `spec.conda` on the platform.

    Raises EnvironmentSpecError with the solver's explanation of a conflict, or with the channel,
    package or match spec that is not available and the nearest name.
    """
    further = [settings.url(item.rpartition("::")[0]) for item in spec.conda if "::" in item]
    channels = tuple(dict.fromkeys((*settings.urls(spec.channels), *further)))
    request = {
        "channels": [without_credentials(channel) for channel in channels],
        "specs": [_with_channel_url(item, settings) for item in spec.conda],
        "packages": [split_entry(item)[0] for item in spec.conda],
        "platform": platform.subdir,
        "virtual_packages": dict(platform.virtual_packages),
        "strict_priority": settings.strict_priority,
        "refresh": refresh,
        "path": _rattler_path(),
    }
    answer = _ask(request, index_access.find(channels, channels, HERE).files())
    if "problem" in answer:
        raise _error(Problem(**answer["problem"]), spec, channels, platform)
    return tuple(sorted(_package(record) for record in answer["records"]))


def _ask(request: dict[str, Any], secrets: Mapping[str, bytes]) -> dict[str, Any]:
    command = [sys.executable, "-I", rattler_solve.__file__]
    with cache.scratch_folder() as folder:
        env = dict(os.environ)
        for variable, content in (
            ("NETRC", index_access.without_default()),
            ("RATTLER_AUTH_FILE", secrets.get(RATTLER_AUTH)),
        ):
            if content is not None:
                env[variable] = str(cache.write(folder / variable.lower(), content))
        process = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, env=env, cwd=folder
        )
    log.debug("rattler exited with %s: %s", process.returncode, process.stderr)
    try:
        answer = json.loads(process.stdout)  # complete even if the process crashed at its end
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    text = process.stderr.strip()[-500:] or f"the solver exited with code {process.returncode}"
    return {"problem": {"kind": "other", "text": text}}


def _rattler_path() -> list[str]:
    """The folder of rattler: a Python in isolated mode does not search all folders that this one
    does (a user's own site-packages).

    The current folder does not count, even if this Python searches it (`python -m mlflow`).
    """
    folders = [item for item in sys.path if item and os.path.realpath(item) != os.getcwd()]
    module = importlib.machinery.PathFinder.find_spec("rattler", folders)
    locations = module.submodule_search_locations if module else None
    return [os.path.dirname(item) for item in locations or ()]


def _package(record: dict[str, Any]) -> CondaPackage:
    values = {
        **record,
        "url": without_credentials(record["url"]),
        "depends": tuple(record["depends"]),
    }
    return CondaPackage(**values)


def _with_channel_url(item: str, settings: CondaSettings) -> str:
    channel, separator, rest = item.rpartition("::")
    return f"{without_credentials(settings.url(channel))}::{rest}" if separator else item


def _error(
    problem: Problem, spec: Spec, channels: Sequence[str], platform: Platform
) -> EnvironmentSpecError:
    text = redact(problem.text).removeprefix("Cannot solve the request because of: ")
    if problem.kind == "channel":
        return _channel_error(text, spec, channels)
    if problem.kind == "match spec":
        return EnvironmentSpecError(
            f"{spec.source}: {text}", hint="write a match spec such as numpy=2.1 or 'numpy >=2,<3'"
        )
    if problem.kind == "unsolvable":
        listed = ", ".join(map(without_credentials, channels))
        hints = [_missing(split_entry(item)[0], problem, text) for item in spec.conda]
        return EnvironmentSpecError(
            f"{spec.source}: cannot be solved for {platform.subdir} from "
            f"{listed}:\n{_shorten(text, MOST_LINES - 2)}",
            code="NoSolution",
            hint="; ".join(filter(None, hints)),
        )
    return EnvironmentSpecError(
        f"{spec.source}: cannot be solved: {_shorten(text, 3)}", code="SolverFailed"
    )


def _channel_error(text: str, spec: Spec, channels: Sequence[str]) -> EnvironmentSpecError:
    url = next(
        (
            without_credentials(channel)
            for channel in channels
            if without_credentials(channel) in text or channel in text
        ),
        without_credentials(channels[0]),
    )
    message = f"{spec.source}: channel {url} cannot be read: {_cause(text)}"
    name = url.rpartition("/")[2]
    near = difflib.get_close_matches(name, POPULAR_CHANNELS, n=1)
    if near and near[0] != name:
        return EnvironmentSpecError(message, code="NotFound", hint=f"did you mean '{near[0]}'?")
    if index_access.is_denied(text):
        return EnvironmentSpecError(
            message,
            code="IndexDenied",
            hint="set a login for it in .netrc, or in the channel's URL in .condarc",
        )
    return EnvironmentSpecError(
        message,
        code="IndexUnavailable",
        hint="set a mirror in .condarc (channel_alias, custom_channels), list the packages below "
        "'pip:', or use the active environment with --env-manager local",
    )


def _cause(text: str) -> str:
    """The attempt and the reason of its failure: rattler's first and last lines."""
    lines = [line.removeprefix("Caused by: ").strip() for line in text.splitlines() if line.strip()]
    return ": ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else "no reason given"


def _missing(name: str, problem: Problem, text: str) -> str | None:
    """A hint for a package without candidates; None for another package."""
    if f"No candidates were found for {name} " not in text + " ":
        return None
    versions = problem.versions.get(name)
    if versions:
        return f"available versions of {name}: {', '.join(versions[-8:])}"
    near = difflib.get_close_matches(name, problem.names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"no channel has a package '{name}'"


def _shorten(text: str, most: int) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > most:
        lines[most:] = [f"({len(lines) - most} more lines)"]
    return "\n".join(lines)
