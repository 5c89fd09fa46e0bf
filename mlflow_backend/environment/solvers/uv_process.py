"""uv as a process that reads the user's settings and nothing of the folders around it."""

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

MOST_LINES = 10
NEEDS_BUILD = re.compile(
    r"(?:Wheels are required for|Building source distributions for) "
    r"`([^`\s]+)[^`]*`"
)


def run(arguments: Sequence[str], folder: Path, source: Path, permissions: Permissions) -> str:
    """Run uv in `folder`, which is private and holds nothing but its input; its standard output.

    uv looks for a uv.toml, a pyproject.toml and a .venv in the folders above it, so its
    configuration is named to it, and so is its Python. Without `permissions.builds` it runs no code
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
        raise EnvironmentSpecError(f"{source}: {_words(process.stderr, folder)}")
    return process.stdout


def _words(stderr: str, folder: Path) -> str:
    """uv's explanation in at most ten lines; of a longer one its end, which is the conclusion.

    What must be built is named with what allows it.
    """
    text = redact(stderr).replace(f"{folder}{os.sep}", "")
    unbuilt = sorted(set(NEEDS_BUILD.findall(text)))
    lines = [
        line.rstrip()
        for line in text.splitlines()
        if line.strip() and not line.startswith(("warning:", "hint: Wheels are required"))
    ]
    if lines:
        lines[0] = lines[0].removeprefix("error: ")
    if len(lines) > MOST_LINES:
        lines = [
            lines[0],
            f"  ({len(lines) - MOST_LINES + 2} lines left out)",
            *lines[-(MOST_LINES - 2) :],
        ]
    if unbuilt:
        lines.append(
            f"{', '.join(unbuilt)}: has no wheel, and packages are not built on this machine for a "
            "cluster: set 'allow_builds: true' in the target, or run mlflow-compute env lock "
            "--target NAME --allow-builds"
        )
    return "\n".join(lines)
