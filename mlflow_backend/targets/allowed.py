"""The targets files that the user allowed with `mlflow-compute targets allow`, and the hashes of
their texts, as direnv does for `.envrc`.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path


def is_allowed(path: Path, text: str) -> bool:
    """Whether the user allowed this file with exactly this text."""
    return _read().get(_name(path)) == _digest(text)


def was_allowed(path: Path) -> bool:
    """Whether the user ever allowed the file; its text may have changed since."""
    return _name(path) in _read()


def allow(path: Path, text: str) -> None:
    """Record the file with this text. Raises OSError."""
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, draft = tempfile.mkstemp(dir=file.parent)
    with open(descriptor, "w") as stream:
        json.dump({**_read(), _name(path): _digest(text)}, stream, indent=2, sort_keys=True)
    os.replace(draft, file)


def _read() -> dict[str, str]:
    try:
        digests = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return digests if isinstance(digests, dict) else {}


def _file() -> Path:
    import platformdirs

    return platformdirs.user_state_path("mlflow-compute") / "allowed-targets.json"


def _name(path: Path) -> str:
    return os.path.realpath(path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
