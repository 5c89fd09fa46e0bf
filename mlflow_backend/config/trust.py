"""Who may have written a file: what the current user, or the machine's administrator, wrote is trusted."""

import os
import stat
from pathlib import Path

ADMINISTRATOR = 0


def reason_against(path: Path, project: Path | None) -> str | None:
    """Why others may have written the file `path`, in words that follow a colon; None when only this user can have.

    `project` is the folder of the project that is run: its whole work tree, up to the top of its git
    repository, came from its author. What git itself refuses (safe.directory, CVE-2022-24765) is refused too:
    a file or a folder of another user.
    """
    real = Path(os.path.realpath(path))
    if project and (tree := work_tree(project)) and any(tree in place.parents for place in (real, _folder_resolved(path))):
        return f"it is part of the project that is run ({tree})"
    if not hasattr(os, "getuid"):
        return None
    for place in dict.fromkeys((path, path.parent, real, real.parent)):
        status = os.lstat(place)
        kind = "its folder" if stat.S_ISDIR(status.st_mode) else "it"
        if status.st_uid not in (ADMINISTRATOR, os.getuid()):
            return f"{kind} belongs to another user (uid {status.st_uid})"
        if not stat.S_ISLNK(status.st_mode) and others_may_write(status):
            return f"other users may write {'to its folder' if kind != 'it' else 'it'}"
    return None


def work_tree(project: Path) -> Path:
    """The top of the git repository that the folder is in, links resolved; the folder itself where it is in none."""
    folder = Path(os.path.realpath(project))
    return next((place for place in (folder, *folder.parents) if (place / ".git").exists()), folder)


def _folder_resolved(path: Path) -> Path:
    return Path(os.path.realpath(path.parent)) / path.name


def others_may_write(status: os.stat_result) -> bool:
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return False  # as in /tmp: a user can neither replace nor remove what another made, and the file's owner is checked
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid != ADMINISTRATOR and not _is_own_group(status.st_gid)
    return bool(status.st_mode & stat.S_IWOTH or by_group)


def _is_own_group(group_id: int) -> bool:
    """Whether the group is the current user's private one: of the same name, without other members (umask 002 relies on it)."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(group_id), pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
