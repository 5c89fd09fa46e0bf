"""Hashes by which a pod knows that it got what was submitted: ConfigMaps and Secrets can be
replaced by others, a Job's command cannot.
"""

import hashlib
import json
from typing import Mapping

NONCE = "compute.nonce"
"""A key of the run's Secret with random bytes: without them the Secret's hash in the Job would let
its readers try passwords.
"""


def digest(files: Mapping[str, bytes]) -> str:
    """The sha256 (hex) of the files of one folder, by name and content in any order."""
    content = sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items())
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
