"""All package files of a lock in one archive, for pods that reach only the artifact store."""

import contextlib
import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies

from mlflow_backend import scratch
from mlflow_backend.environment import cache, checks
from mlflow_backend.environment.indexes import index_settings
from mlflow_backend.environment.indexes.index_access import Login
from mlflow_backend.environment.lock_files import conda_lock_file, pylock
from mlflow_backend.environment.locks import CachedLock
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_backend.explanations import Code
from mlflow_backend.progress import Progress
from mlflow_runner.contract.answers import DENIED_STATUS
from mlflow_runner.contract.submission import CONDA_LOCK, PYLOCK

if TYPE_CHECKING:
    import requests

AT_ONCE = 8
TIMEOUT_S = 60


class File(NamedTuple):
    """One file of a lock: its address, its sha256 (hex), and its name in the archive."""

    url: str
    sha256: str
    name: str


@contextlib.contextmanager
def stage(lock: CachedLock, progress: Progress) -> Iterator[Path]:
    """The archive (a tar) for the duration of the context; the downloads stay in the user's cache.

    Raises EnvironmentSpecError for a file that cannot be downloaded, or differs from the lock.
    """
    files = sorted(set(list_files(lock)), key=lambda file: file.name)
    folder = cache.make("packages")
    logins = lock.logins.sent
    missing = [file for file in files if not _is_intact(folder / file.sha256, file.sha256)]
    with _session() as session, ThreadPoolExecutor(AT_ONCE) as pool:
        for count, _ in enumerate(
            pool.map(lambda file: _download(session, file, folder, logins), missing), 1
        ):
            progress.count("downloading packages to stage", count, len(missing))
    with scratch.folder() as temporary:
        archive = temporary / "packages.tar"
        with tarfile.open(archive, "w") as tar:
            for file in files:
                tar.add(folder / file.sha256, file.name, recursive=False)
        progress.waiting(f"uploading {len(files)} packages ({archive.stat().st_size / 1e6:.0f} MB)")
        yield archive


def list_files(lock: CachedLock) -> Iterator[File]:
    """Every file from which the lock may be installed; not the source of a package with wheels.

    Raises EnvironmentSpecError for a package that is not a file with a sha256.
    """
    paths = lock.files
    if CONDA_LOCK in paths:
        text = paths[CONDA_LOCK].read_text(encoding="utf-8")
        for package in conda_lock_file.read(text, lock.source, lock.environment.platform).conda:
            where = f"{lock.source}: {package.name}"
            yield _file(package.url, package.sha256, f"conda/{package.subdir}", where)
    if PYLOCK in paths:
        content = pylock.read(paths[PYLOCK].read_text(encoding="utf-8"), str(lock.source))
        for entry in content["packages"]:
            where = f"{lock.source}: {entry['name']}"
            files = pylock.files(entry)
            if not files:
                raise _not_staged(f"{where}: is not a file of an index")
            for file in files:
                yield _file(file["url"], file["hashes"].get("sha256", ""), "python", where)


def _file(url: str, sha256: str, folder: str, where: str) -> File:
    if not sha256:
        raise _not_staged(f"{where}: has no sha256 in the lock")
    return File(url, sha256, f"{folder}/{checks.file_name(url, where)}")


def _not_staged(problem: str) -> EnvironmentSpecError:
    return EnvironmentSpecError(
        f"{problem} and cannot be staged",
        code="UnsupportedRequirement",
        hint="list a released package, or remove 'stage_packages' from the target",
    )


def _is_intact(path: Path, sha256: str) -> bool:
    """Whether a file of an earlier download is unchanged."""
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
def _session() -> "Iterator[requests.Session]":
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
        session.trust_env = False  # logins are chosen by host, not by .netrc
        session.proxies = getproxies()
        yield session


def _download(
    session: "requests.Session", file: File, folder: Path, logins: Mapping[str, Login]
) -> None:
    """Download into `folder` under the file's hash, the whole file or nothing."""
    import requests

    handle, new = tempfile.mkstemp(dir=folder, prefix=".new-")
    digest = hashlib.sha256()
    try:
        with open(handle, "wb") as target:
            for block in _blocks(session, file.url, logins):
                digest.update(block)
                target.write(block)
        if digest.hexdigest() != file.sha256:
            raise checks.invalid(
                f"{file.url}: hash mismatch: the lock has {file.sha256}, the file "
                f"{digest.hexdigest()}"
            )
        os.replace(new, folder / file.sha256)
    except (requests.RequestException, OSError) as error:
        raise EnvironmentSpecError(
            f"{file.url}: cannot be downloaded: {_reason(error)}", code=_code(error)
        ) from None
    finally:
        Path(new).unlink(missing_ok=True)


def _code(error: Exception) -> Code:
    response = getattr(error, "response", None)
    status = None if response is None else response.status_code
    if status in DENIED_STATUS:
        return "IndexDenied"
    return "NotFound" if status == 404 else "IndexUnavailable"


def _reason(error: Exception) -> str:
    """The reason without the address, which may contain a conda token."""
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


def _blocks(session: "requests.Session", url: str, logins: Mapping[str, Login]) -> Iterator[bytes]:
    parts = urlsplit(url)
    if parts.scheme == "file":
        path = unquote(parts.path)
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("not a regular file")
        with open(path, "rb") as file:
            yield from iter(lambda: file.read(1 << 20), b"")
        return
    login = logins.get(parts.hostname or "")
    auth = (login.user, login.password) if login and login.user is not None else None
    if login and login.token:
        url = urlunsplit(parts._replace(path=f"/t/{login.token}{parts.path}"))
    with session.get(url, stream=True, timeout=TIMEOUT_S, auth=auth) as response:
        response.raise_for_status()
        yield from response.iter_content(1 << 20)
