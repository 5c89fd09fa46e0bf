"""uv as a process that reads the user's settings and no file of the folders above it."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mlflow_backend.environment import cache, toml_text
from mlflow_backend.environment.indexes import index_access, index_settings
from mlflow_backend.environment.permissions import Permissions
from mlflow_backend.errors import EnvironmentSpecError, redact
from mlflow_backend.explanations import Code

MOST_LINES = 10
NEEDS_BUILD = re.compile(
    r"(?:Wheels are required for|Building source distributions for) "
    r"`([^`\s]+)[^`]*`"
)
NOT_BUILT = "packages are not built on this machine for a cluster"
ALLOW_BUILDS = (
    "set 'allow_builds: true' in the target, or run mlflow-compute env lock --target NAME "
    "--allow-builds"
)

log = logging.getLogger(__name__)


def run(arguments: Sequence[str], folder: Path, source: Path, permissions: Permissions) -> str:
    """Run uv in `folder`, which is private and holds nothing but its input; its standard output.

    uv searches the folders above it for a uv.toml, a pyproject.toml and a .venv, so its
    configuration and its Python are passed by path. Without `permissions.builds` it runs no code
    of a package. Raises EnvironmentSpecError with uv's words.
    """
    import uv

    env, config = index_settings.for_uv(), index_settings.uv_config()
    if not permissions.builds:
        env, config = index_settings.without_building(env, config)
    if (netrc := index_access.without_default()) is not None:
        env["NETRC"] = str(cache.write(folder / "netrc", netrc))
    settings = cache.write(folder / "uv.toml", toml_text.dump(config).encode())
    command = [
        uv.find_uv_bin(),
        "--no-progress",
        "--color",
        "never",
        "--config-file",
        str(settings),
        *arguments,
        "--python",
        sys.executable,
    ]
    command += [] if permissions.builds else ["--no-build"]
    process = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if process.returncode:
        log.debug("uv exited with %s: %s", process.returncode, process.stderr)
        raise _error(process.stderr, folder, source)
    return process.stdout


def _error(stderr: str, folder: Path, source: Path) -> EnvironmentSpecError:
    """uv's explanation, and the packages that would have to be built."""
    text = redact(stderr).replace(f"{folder}{os.sep}", "")
    lines = _explanation(text)
    if unbuilt := sorted(set(NEEDS_BUILD.findall(text))):
        lines.append(f"{', '.join(unbuilt)}: has no wheel, and {NOT_BUILT}")
    return EnvironmentSpecError(
        f"{source}: " + "\n".join(lines),
        code="UnsupportedRequirement" if unbuilt else _code(text),
        hint=ALLOW_BUILDS if unbuilt else "",
    )


def _explanation(text: str) -> list[str]:
    """At least one and at most ten lines; of a longer explanation its end, the conclusion."""
    lines = [
        line.rstrip()
        for line in text.splitlines()
        if line.strip() and not line.startswith(("warning:", "hint: Wheels are required"))
    ] or ["uv failed without an explanation"]
    lines[0] = lines[0].removeprefix("error: ")
    if len(lines) > MOST_LINES:
        omitted = len(lines) - MOST_LINES + 1
        lines[1 : -(MOST_LINES - 2)] = [f"  ({omitted} lines omitted)"]
    return lines


def _code(text: str) -> Code:
    if index_access.is_denied(text):
        return "IndexDenied"
    if "No solution found" in text:
        return "NoSolution"
    return "IndexUnavailable" if "Failed to fetch" in text else "SolverFailed"
