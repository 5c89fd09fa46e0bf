"""All package files of a lock in one archive, for pods that reach nothing but the artifact
store.
"""

import contextlib
import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from mlflow_backend import scratch
from mlflow_backend.environment import cache, checks
from mlflow_backend.environment.indexes import index_settings
from mlflow_backend.environment.lock_files import conda_lock_file, pylock
from mlflow_backend.environment.locks import CachedLock
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_backend.progress import Progress
from mlflow_runner.contract.submission import CONDA_LOCK, PYLOCK

AT_ONCE = 8
TIMEOUT_S = 60


class File(NamedTuple):
    """One file of a lock: its address, its sha256 (hex), and its name in the archive."""

    url: str
    sha256: str
    name: str


@contextlib.contextmanager
def staged(kept: CachedLock, progress: Progress) -> Iterator[Path]:
    """The archive (a tar) while the context lasts; what was downloaded stays in the user's cache.

    Raises EnvironmentSpecError for a file that cannot be downloaded, or is not what was locked.
    """
    wanted = sorted(set(files(kept)), key=lambda file: file.name)
    folder = cache.make("packages")
    logins = kept.logins.sent
    missing = [file for file in wanted if not _is_there(folder / file.sha256, file.sha256)]
    with _session() as session, ThreadPoolExecutor(AT_ONCE) as pool:
        for count, _ in enumerate(
            pool.map(lambda file: _download(session, file, folder, logins), missing), 1
        ):
            progress.count("downloading packages to stage", count, len(missing))
    with scratch.folder() as place:
        archive = place / "packages.tar"
        with tarfile.open(archive, "w") as tar:
            for file in wanted:
                tar.add(folder / file.sha256, file.name, recursive=False)
        progress.waiting(
            f"uploading {len(wanted)} packages ({archive.stat().st_size / 1e6:.0f} MB)"
        )
        yield archive


def files(kept: CachedLock) -> Iterator[File]:
    """Every file that the lock may be installed from; of a package with wheels not its source."""
    found = kept.files
    if CONDA_LOCK in found:
        text = found[CONDA_LOCK].read_text(encoding="utf-8")
        for package in conda_lock_file.read(text, kept.source, kept.environment.platform).conda:
            yield _file(package.url, package.sha256, f"conda/{package.subdir}", package.name)
    if PYLOCK in found:
        for package in pylock.read(found[PYLOCK].read_text(encoding="utf-8"), str(kept.source))[
            "packages"
        ]:
            choices = pylock.files(package)
            if not choices:
                raise EnvironmentSpecError(
                    f"{kept.source}: {package['name']} is not a file of an index and cannot be "
                    "staged"
                )
            for choice in choices:
                yield _file(
                    choice["url"], choice["hashes"].get("sha256", ""), "python", package["name"]
                )


def _file(url: str, sha256: str, folder: str, package: str) -> File:
    if not sha256:
        raise EnvironmentSpecError(
            f"{package}: its lock has no sha256, without which it cannot be staged"
        )
    return File(url, sha256, f"{folder}/{checks.file_name(url, package)}")


def _is_there(path: Path, sha256: str) -> bool:
    """Whether a file of an earlier download still is what it was."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return _digest(iter(lambda: file.read(1 << 20), b"")) == sha256
    except OSError:
        return False


def _digest(blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _session():
    """HTTP with the user's own certificate authorities and proxies."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    with requests.Session() as session:
        session.verify = index_settings.ca_bundle() or True
        adapter = HTTPAdapter(
            pool_maxsize=AT_ONCE,
            max_retries=Retry(3, backoff_factor=0.5, status_forcelist=(429, 502, 503, 504)),
        )
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        session.trust_env = False  # the logins are known by host already
        session.proxies = requests.utils.getproxies()
        yield session


def _download(session, file: File, folder: Path, logins) -> None:
    """Into `folder` under its hash, whole or not at all."""
    import requests

    handle, new = tempfile.mkstemp(dir=folder, prefix=".new-")
    digest = hashlib.sha256()
    try:
        with open(handle, "wb") as target:
            for block in _blocks(session, file.url, logins):
                digest.update(block)
                target.write(block)
        if digest.hexdigest() != file.sha256:
            raise EnvironmentSpecError(
                f"{file.url}: hash mismatch: locked {file.sha256}, found {digest.hexdigest()}"
            )
        os.replace(new, folder / file.sha256)
    except (requests.RequestException, OSError) as error:
        raise EnvironmentSpecError(f"{file.url} cannot be downloaded: {_reason(error)}") from None
    finally:
        Path(new).unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """What went wrong, without the address: a conda token is part of it."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"{response.status_code} {response.reason}"
    innermost = error
    while innermost.args and isinstance(
        getattr(innermost.args[0], "reason", innermost.args[0]), Exception
    ):
        innermost = getattr(innermost.args[0], "reason", innermost.args[0])
    return (
        getattr(innermost, "strerror", None) or str(innermost).rpartition(": ")[2].splitlines()[0]
    )


def _blocks(session, url: str, logins) -> Iterator[bytes]:
    parts = urlsplit(url)
    if parts.scheme == "file":
        path = unquote(parts.path)
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("not a file")
        with open(path, "rb") as file:
            yield from iter(lambda: file.read(1 << 20), b"")
        return
    login = logins.get(parts.hostname)
    auth = (login.user, login.password) if login and login.user is not None else None
    if login and login.token:
        url = urlunsplit(parts._replace(path=f"/t/{login.token}{parts.path}"))
    with session.get(url, stream=True, timeout=TIMEOUT_S, auth=auth) as response:
        response.raise_for_status()
        yield from response.iter_content(1 << 20)
