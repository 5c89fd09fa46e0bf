"""All package files of a lock in one archive, for pods that reach nothing but the artifact store."""

import contextlib
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from mlflow_backend.environment import index_access
from mlflow_backend.environment.lock import load_toml
from mlflow_backend.environment.locks import Kept, cache_dir
from mlflow_backend.environment.spec import load_yaml
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_backend.progress import Progress
from mlflow_runner.submission import CONDA_LOCK, PYLOCK

AT_ONCE = 8
TIMEOUT_S = 60


class File(NamedTuple):
    """One file of a lock: its address, its sha256 (hex), and its name in the archive."""

    url: str
    sha256: str
    name: str


@contextlib.contextmanager
def staged(kept: Kept, progress: Progress) -> Iterator[Path]:
    """The archive (a tar) while the context lasts; what was downloaded stays in the user's cache.

    Raises EnvironmentSpecError for a file that cannot be had, or is not what was locked.
    """
    wanted = sorted(set(files(kept)), key=lambda file: file.name)
    folder = cache_dir() / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    logins = kept.logins()
    missing = [file for file in wanted if not (folder / file.sha256).exists()]
    with _session() as session, ThreadPoolExecutor(AT_ONCE) as pool:
        for count, _ in enumerate(pool.map(lambda file: _download(session, file, folder, logins), missing), 1):
            progress.count("downloading packages to stage", count, len(missing))
    with tempfile.TemporaryDirectory(prefix="mlflow-compute-") as place:
        archive = Path(place) / "packages.tar"
        with tarfile.open(archive, "w") as tar:
            for file in wanted:
                tar.add(folder / file.sha256, file.name)
        progress.waiting(f"uploading {len(wanted)} packages ({archive.stat().st_size / 1e6:.0f} MB)")
        yield archive


def files(kept: Kept) -> Iterator[File]:
    """Every file that the lock may be installed from; of a package with wheels not its source."""
    found = kept.files
    if CONDA_LOCK in found:
        for item in load_yaml(found[CONDA_LOCK])["package"]:
            subdir, name = item["url"].rsplit("/", 2)[1:]
            yield _file(item["url"], item["hash"], f"conda/{subdir}/{name}", item["name"])
    if PYLOCK in found:
        for item in load_toml(found[PYLOCK].read_text()).get("packages", ()):
            choices = item.get("wheels") or [item[kind] for kind in ("sdist", "archive") if kind in item]
            if not choices:
                raise EnvironmentSpecError(f"{kept.source}: {item['name']} is not a file of an index and cannot be staged")
            for choice in choices:
                name = choice.get("name") or choice["url"].rpartition("/")[2]
                yield _file(choice["url"], choice.get("hashes", {}), f"python/{name}", item["name"])


def _file(url: str, hashes, name: str, package: str) -> File:
    if "sha256" not in hashes:
        raise EnvironmentSpecError(f"{package}: its lock has no sha256, without which it cannot be staged")
    return File(url, hashes["sha256"], name)


@contextlib.contextmanager
def _session():
    """HTTP with the user's own certificate authorities and proxies."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    with requests.Session() as session:
        session.verify = index_access.ca_bundle() or True
        adapter = HTTPAdapter(pool_maxsize=AT_ONCE, max_retries=Retry(3, backoff_factor=0.5, status_forcelist=(429, 502, 503, 504)))
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
            raise EnvironmentSpecError(f"{file.url}: hash mismatch: locked {file.sha256}, found {digest.hexdigest()}")
        os.replace(new, folder / file.sha256)
    except (requests.RequestException, OSError) as error:
        raise EnvironmentSpecError(f"{file.url} cannot be downloaded: {error}") from None
    finally:
        Path(new).unlink(missing_ok=True)


def _blocks(session, url: str, logins) -> Iterator[bytes]:
    parts = urlsplit(url)
    if parts.scheme == "file":
        yield Path(unquote(parts.path)).read_bytes()
        return
    login = logins.get(parts.hostname)
    auth = (login.user, login.password) if login and login.user is not None else None
    if login and login.token:
        url = urlunsplit(parts._replace(path=f"/t/{login.token}{parts.path}"))
    with session.get(url, stream=True, timeout=TIMEOUT_S, auth=auth) as response:
        response.raise_for_status()
        yield from response.iter_content(1 << 20)
