"""Whether a file can be trusted: only the current user or the administrator may have written it."""

import os
import stat
from pathlib import Path

from mlflow_backend.files.git_checkout import ADMINISTRATOR, work_tree


def reason_against(path: Path, project: Path | None) -> str | None:
    """Why others may have written the file `path`, as a clause; None if only this user or the
    administrator can have.

    `project` is the folder of the project that is run. Its author wrote its whole work tree, up to
    the top of its git repository; folders above that, below the home folder, may be part of the
    same archive. As git does (safe.directory, CVE-2022-24765), this rejects a file or a folder of
    another user.
    """
    real = Path(os.path.realpath(path))
    places = (real, _folder_resolved(path))
    if project and (tree := work_tree(project)) and any(tree in place.parents for place in places):
        return f"it is part of the project that is run ({tree})"
    if project and any(_may_come_with(place.parent, tree) for place in places):
        return f"it may have come with the project that is run ({tree})"
    if not hasattr(os, "getuid"):
        return None
    for place in dict.fromkeys((path, path.parent, real, real.parent)):
        status = os.lstat(place)
        kind = "its folder" if stat.S_ISDIR(status.st_mode) else "it"
        if status.st_uid not in (ADMINISTRATOR, os.getuid()):
            return f"{kind} belongs to another user (uid {status.st_uid})"
        if not stat.S_ISLNK(status.st_mode) and others_may_write(status):
            return f"other users can write to {kind}"
    return None


def _may_come_with(folder: Path, tree: Path) -> bool:
    """Whether the tree may come from an archive that was unpacked in the folder; the home folder is
    no such folder.
    """
    home = Path(os.path.realpath(Path.home()))
    return folder in tree.parents and folder != home and folder not in home.parents


def _folder_resolved(path: Path) -> Path:
    return Path(os.path.realpath(path.parent)) / path.name


def others_may_write(status: os.stat_result) -> bool:
    """Whether users other than the owner can write to the file, or replace files of the folder."""
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        # as /tmp: users cannot replace or remove files of others, and the file's owner is checked
        return False
    by_group = (
        status.st_mode & stat.S_IWGRP
        and status.st_gid != ADMINISTRATOR
        and not _is_own_group(status.st_gid)
    )
    return bool(status.st_mode & stat.S_IWOTH or by_group)


def _is_own_group(group_id: int) -> bool:
    """Whether the group is the user's private one, on which umask 002 relies: it has the same name
    and no other members.
    """
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(group_id), pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
