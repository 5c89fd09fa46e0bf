"""Remove an environment from a cache."""

import glob
import os
import shutil
from typing import List


def writable(path: str) -> List[str]:
    """The folders of an environment, relative to it, that an installer would write to; `realise`
    makes them read-only.
    """
    found = [
        os.path.join(path, "bin"),
        *glob.glob(os.path.join(path, "lib", "python3*", "site-packages")),
    ]
    return [
        os.path.relpath(item, path)
        for item in found
        if os.path.isdir(item) and not os.path.islink(item)
    ]


def remove(path: str) -> None:
    """Remove the folder `path`, if it is there."""
    for name in writable(path):
        os.chmod(os.path.join(path, name), 0o755)
    if os.path.lexists(path):
        shutil.rmtree(path)
