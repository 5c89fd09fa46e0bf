"""Trees of files for tests of what travels."""

import contextlib
import os
import tempfile
from pathlib import Path

ANYBODY = 65534


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@contextlib.contextmanager
def without_rights():
    """A folder, and this process as a user who may not read everything: root could."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        is_root = os.geteuid() == 0
        os.chmod(folder, 0o755)
        if is_root:
            os.chown(folder, ANYBODY, -1)
            os.seteuid(ANYBODY)
        try:
            yield Path(folder)
        finally:
            if is_root:
                os.seteuid(0)
