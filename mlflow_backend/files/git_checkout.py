"""The commit, remote and branch of a project's folder, which MLflow's tags name.

The folder may be an archive of another author with its own `.git`, and a repository's configuration
can name programs for git to start. This module prevents that; mlflow/utils/git_utils.py does not.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

TIMEOUT_S = 10.0
ADMINISTRATOR = 0
OFF = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.alternateRefsCommand": "",
    "log.showSignature": "false",
}
"""The settings of reading commands that name programs. https://git-scm.com/docs/git-config"""


class Checkout(NamedTuple):
    """The `commit` of the work tree `top`; `url` is that of its first remote."""

    top: Path
    commit: str
    url: str | None


def describe(folder: Path, ceiling: Path | None = None) -> Checkout | None:
    """The checkout that contains the folder.

    None without a work tree, if its `.gitignore` excludes the folder, or if git rejects it, such as
    one of another user (safe.directory). A `.git` in `ceiling` or above does not count.
    """
    if not (work_tree(folder) / ".git").exists():
        return None  # without the cost of a process
    top_and_commit = _ask(folder, ceiling, "rev-parse", "--show-toplevel", "HEAD")
    if top_and_commit is None or len(lines := top_and_commit.splitlines()) != 2:
        return None
    if _ask(folder, ceiling, "check-ignore", "--quiet", str(folder)) is not None:
        return None
    urls = _ask(folder, ceiling, "config", "--get-regexp", r"^remote\..*\.url$") or ""
    first = urls.partition("\n")[0].partition(" ")[2]
    return Checkout(Path(lines[0]), lines[1], first or None)


def work_tree(folder: Path, of_this_user: bool = False) -> Path:
    """The top of the git repository that contains the folder, links resolved; the folder itself
    without a repository.

    With `of_this_user`, a `.git` of another user in a parent folder such as /tmp does not count
    (CVE-2022-24765).
    """
    real = Path(os.path.realpath(folder))
    return next((place for place in (real, *real.parents) if _is_top(place, of_this_user)), real)


def _is_top(place: Path, of_this_user: bool) -> bool:
    try:
        owner = (place / ".git").stat().st_uid
    except OSError:
        return False
    return not of_this_user or not hasattr(os, "getuid") or owner in (os.getuid(), ADMINISTRATOR)


def is_branch(folder: Path, name: str | None) -> bool:
    """Whether the repository has a local branch `name`."""
    return (
        bool(name)
        and _ask(folder, None, "show-ref", "--verify", "--quiet", f"refs/heads/{name}") is not None
    )


def _ask(folder: Path, ceiling: Path | None, *arguments: str) -> str | None:
    """The output of git; None if it fails or is not installed."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(
            [git, "-C", folder, *arguments],
            env=_environment(os.environ, ceiling),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").rstrip("\n") if done.returncode == 0 else None


def _environment(environ: Mapping[str, str], ceiling: Path | None) -> dict[str, str]:
    """The user's settings, then ours, which take precedence over those of the repository.

    No protocol is allowed, so git does not fetch a missing object.
    """
    count = environ.get("GIT_CONFIG_COUNT", "")
    existing = int(count) if count.isdecimal() else 0
    settings: dict[str, str] = {}
    for number, (name, value) in enumerate(OFF.items(), existing):
        settings |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    limits = {"GIT_CEILING_DIRECTORIES": str(ceiling)} if ceiling else {}
    fixed = {
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
    }
    return {**environ, **settings, "GIT_CONFIG_COUNT": str(existing + len(OFF)), **fixed, **limits}
