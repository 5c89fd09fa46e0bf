"""Remove an environment from a cache."""

import glob
import os
import shutil
from typing import List


def list_writable(path: str) -> List[str]:
    """The folders of an environment, relative to it, that an installer writes to; `realise` makes
    them read-only.
    """
    folders = [
        os.path.join(path, "bin"),
        *glob.glob(os.path.join(path, "lib", "python3*", "site-packages")),
    ]
    return [
        os.path.relpath(folder, path)
        for folder in folders
        if os.path.isdir(folder) and not os.path.islink(folder)
    ]


def remove(path: str) -> None:
    """Remove the folder `path`, if it exists. Raises OSError."""
    for name in list_writable(path):
        os.chmod(os.path.join(path, name), 0o700)
    if os.path.lexists(path):
        shutil.rmtree(path)
