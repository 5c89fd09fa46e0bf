"""What git says of a project's folder: its commit, remote and branch, as MLflow tags them.

The folder may come from anyone, as an archive does with a `.git` of its own, and a repository's
configuration can name programs that git starts. None of them is started here
(mlflow/utils/git_utils.py does not prevent it).
"""

import os
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
"""Settings that name programs, for commands that read. https://git-scm.com/docs/git-config"""


class Checkout(NamedTuple):
    """A folder below the work tree `top`.

    `url` is the first remote's, as the repository's configuration has it.
    """

    top: Path
    commit: str
    url: str | None


def describe(folder: Path, ceiling: Path | None = None) -> Checkout | None:
    """The commit of the work tree that the folder is in; None where there is none, its `.gitignore`
    leaves the folder out, or git refuses it, as it does for one of another user (safe.directory). A
    `.git` in `ceiling` or above it does not count.
    """
    if not (work_tree(folder) / ".git").exists():
        return None  # without the cost of a process
    found = _ask(folder, ceiling, "rev-parse", "--show-toplevel", "HEAD")
    if found is None or len(lines := found.splitlines()) != 2:
        return None
    if _ask(folder, ceiling, "check-ignore", "--quiet", str(folder)) is not None:
        return None
    urls = _ask(folder, ceiling, "config", "--get-regexp", r"^remote\..*\.url$") or ""
    first = urls.partition("\n")[0].partition(" ")[2]
    return Checkout(Path(lines[0]), lines[1], first or None)


def work_tree(folder: Path, of_this_user: bool = False) -> Path:
    """The top of the git repository that the folder is in, links resolved; the folder itself where
    it is in none.

    `of_this_user`: a `.git` of another user in a parent folder, such as /tmp, does not count
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
    """Whether the repository has a local branch of the name."""
    return (
        bool(name)
        and _ask(folder, None, "show-ref", "--verify", "--quiet", f"refs/heads/{name}") is not None
    )


def _ask(folder: Path, ceiling: Path | None, *arguments: str) -> str | None:
    """What git prints; None where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],
            env=_environment(os.environ, ceiling),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").rstrip("\n") if done.returncode == 0 else None


def _environment(environ: Mapping[str, str], ceiling: Path | None) -> dict[str, str]:
    """The user's own settings, then ours, which stand above those of the repository.

    A missing object is not fetched: no protocol is allowed.
    """
    count = environ.get("GIT_CONFIG_COUNT", "")
    held = int(count) if count.isdecimal() else 0
    settings = {}
    for number, (name, value) in enumerate(OFF.items(), held):
        settings |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    limits = {"GIT_CEILING_DIRECTORIES": str(ceiling)} if ceiling else {}
    fixed = {
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
    }
    return {**environ, **settings, "GIT_CONFIG_COUNT": str(held + len(OFF)), **fixed, **limits}
