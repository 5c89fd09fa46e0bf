"""Solve match specs with rattler, in a process of its own.

A plain repodata takes 2 GB while it is solved, and a fault in native code must
not take the client along.
"""

import difflib
import importlib.machinery
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from mlflow_backend.environment import cache
from mlflow_backend.environment.asked.conda_yaml import name_and_version
from mlflow_backend.environment.asked.spec import Spec
from mlflow_backend.environment.indexes import index_access
from mlflow_backend.environment.indexes.conda_channels import CondaSettings, without_credentials
from mlflow_backend.environment.lock_files.lock import CondaPackage
from mlflow_backend.environment.permissions import HERE
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.environment.solvers import rattler_solve
from mlflow_backend.errors import EnvironmentSpecError, redact
from mlflow_runner.contract.submission import RATTLER_AUTH

KNOWN_CHANNELS = (
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


def solve(
    spec: Spec, platform: Platform, settings: CondaSettings, refresh: bool = False
) -> tuple[CondaPackage, ...]:
    """The packages of `spec.conda` on the platform.

    Raises EnvironmentSpecError: what collides as the solver says, or the channel,
    package or match spec that is not available, with the nearest name.
    """
    specs = [_with_channel_url(item, settings) for item in spec.conda]
    further = [settings.url(item.rpartition("::")[0]) for item in spec.conda if "::" in item]
    channels = tuple(dict.fromkeys((*settings.urls(spec.channels), *further)))
    request = {
        "channels": [without_credentials(channel) for channel in channels],
        "specs": specs,
        "platform": platform.subdir,
        "virtual_packages": dict(platform.virtual_packages),
        "strict_priority": settings.strict_priority,
        "refresh": refresh,
        "path": _rattler_path(),
    }
    answer = _ask(request, index_access.find(channels, channels, HERE).files())
    if problem := answer.get("problem"):
        raise EnvironmentSpecError(f"{spec.source}: {_explain(problem, spec, channels, platform)}")
    return tuple(sorted(_package(record) for record in answer["records"]))


def _ask(request: dict, secrets: Mapping[str, bytes]) -> dict:
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
    try:
        return json.loads(process.stdout)  # whole, even where the process broke while it ended
    except ValueError:
        return {
            "problem": {
                "kind": "other",
                "text": process.stderr.strip()[-500:]
                or f"the solver ended with code {process.returncode}",
            }
        }


def _rattler_path() -> list[str]:
    """The folder that rattler is installed in: an isolated Python does not look into all that this
    one does (a user's own site-packages).

    The current folder does not count, even where this Python was started with it on its path
    (`python -m mlflow`).
    """
    folders = [item for item in sys.path if item and os.path.realpath(item) != os.getcwd()]
    found = importlib.machinery.PathFinder.find_spec("rattler", folders)
    return (
        [os.path.dirname(item) for item in found.submodule_search_locations]
        if found and found.submodule_search_locations
        else []
    )


def _package(record: dict) -> CondaPackage:
    values = {
        **record,
        "url": without_credentials(record["url"]),
        "depends": tuple(record["depends"]),
    }
    return CondaPackage(**values)


def _with_channel_url(item: str, settings: CondaSettings) -> str:
    channel, separator, rest = item.rpartition("::")
    return f"{without_credentials(settings.url(channel))}::{rest}" if separator else item


def _explain(problem: dict, spec: Spec, channels: Sequence[str], platform: Platform) -> str:
    text = redact(problem["text"]).removeprefix("Cannot solve the request because of: ")
    shown = ", ".join(without_credentials(channel) for channel in channels)
    if problem["kind"] == "channel":
        named = next(
            (
                channel
                for channel in channels
                if without_credentials(channel) in text or channel in text
            ),
            channels[0],
        )
        return (
            f"channel {without_credentials(named)} cannot be read: "
            f"{_cause(text)}\n{_advice(without_credentials(named), text)}"
        )
    if problem["kind"] == "match spec":
        return f"{text}: write a match spec such as numpy=2.1 or 'numpy >=2,<3'"
    if problem["kind"] == "unsolvable":
        hints = [
            hint
            for item in spec.conda
            if (hint := _missing(name_and_version(item)[0], problem, text))
        ]
        tail = f"\n{'; '.join(hints)}" if hints else ""
        return (
            f"cannot be solved for {platform.subdir} from "
            f"{shown}:\n{_lines(text, MOST_LINES - 2)}{tail}"
        )
    return f"cannot be solved: {_lines(text, 3)}"


def _cause(text: str) -> str:
    """What was tried and why it failed: the first and the last of rattler's lines."""
    lines = [line.removeprefix("Caused by: ").strip() for line in text.splitlines() if line.strip()]
    return ": ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else "no reason given"


def _advice(channel: str, text: str) -> str:
    name = channel.rpartition("/")[2]
    near = [item for item in difflib.get_close_matches(name, KNOWN_CHANNELS, n=1) if item != name]
    if near:
        return f"did you mean '{near[0]}'?"
    if "401" in text or "403" in text:
        return "set a login for it in .netrc, or in the channel's URL in .condarc"
    return (
        "set a mirror in .condarc (channel_alias, custom_channels), list the packages below "
        "'pip:', or run with --env-manager local in the environment that is there"
    )


def _missing(name: str, problem: dict, text: str) -> str | None:
    if f"No candidates were found for {name} " not in text + " ":
        return None
    versions = problem["versions"].get(name)
    if versions:
        return f"{name} is there in {', '.join(versions[-8:])}"
    near = difflib.get_close_matches(name, problem["names"], n=1)
    return f"did you mean '{near[0]}'?" if near else f"no channel has a package '{name}'"


def _lines(text: str, most: int) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(
        lines[:most] + ([f"({len(lines) - most} more lines)"] if len(lines) > most else [])
    )
