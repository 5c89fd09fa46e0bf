"""Packages that are staged: files of the lock under safe names, and each what was locked."""

import dataclasses
import hashlib
import tarfile

import pytest

from mlflow_backend.environment import staging
from mlflow_backend.environment.indexes.index_access import Login, Logins
from mlflow_backend.environment.lock_files.lock import CondaPackage, Lock
from mlflow_backend.environment.locks import _load, _store
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_backend.progress import Progress
from tests.packages.index import serve


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """A cached lock of one Python file with this address, and of one conda package."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(url, sha256):
        pylock = (
            f'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"\nwheels = [{{ '
            "url "
            f'= "{url}", hashes = {{ sha256 = "{sha256}" }} }}]\n'
        )
        conda = tmp_path / "noarch" / "b-1-0.conda"
        conda.parent.mkdir(exist_ok=True)
        conda.write_bytes(b"conda")
        package = CondaPackage(
            "b", "1", "0", "noarch", conda.as_uri(), hashlib.sha256(b"conda").hexdigest()
        )
        place = tmp_path / "cache" / "lock"
        place.parent.mkdir(exist_ok=True)
        _store(place, Lock("linux-64", None, (package,), pylock), ())
        return _load(place, tmp_path / "conda.yaml")

    return call


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "a-1-py3-none-any.whl"
    path.write_bytes(b"wheel")
    return path


def members(lock):
    with staging.stage(lock, Progress()) as archive, tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_files_have_the_names_that_they_have_on_disk(keep, tmp_path):
    path = tmp_path / "a-1+cu121-py3-none-any.whl"
    path.write_bytes(b"wheel")
    url = path.as_uri().replace("+", "%2B")
    assert members(keep(url, hashlib.sha256(b"wheel").hexdigest())) == {
        "conda/noarch/b-1-0.conda": b"conda",
        "python/a-1+cu121-py3-none-any.whl": b"wheel",
    }


@pytest.mark.parametrize("sha256", ["../../../.ssh", "", "ab" * 31])
def test_a_hash_is_never_a_path(keep, tmp_path, sha256):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id").write_text("secret")
    with pytest.raises(EnvironmentSpecError, match="64 hex digits"):
        members(keep("https://a.example/a.whl", sha256))


@pytest.mark.parametrize(
    "url", ["file:///proc/self/environ", "file:///dev/zero", "file:///", "file:///etc"]
)
def test_only_files_that_match_the_lock_are_staged(keep, url):
    with pytest.raises(EnvironmentSpecError):
        members(keep(url, "ab" * 32))


@pytest.mark.parametrize("port", [9, None])
def test_a_token_is_not_in_the_error_of_a_download(keep, tmp_path, port):
    (tmp_path / "index").mkdir()
    with serve(tmp_path / "index") as address:
        address = f"http://127.0.0.1:{port}" if port else address
        lock = dataclasses.replace(
            keep(f"{address}/a.whl", "ab" * 32), logins=Logins({"127.0.0.1": Login(token="sesame")})
        )
        with pytest.raises(EnvironmentSpecError) as error:
            members(lock)
    assert str(error.value) in (
        f"{address}/a.whl: cannot be downloaded: {reason}"
        for reason in ("404 File not found", "[Errno 111] Connection refused")
    )


@pytest.mark.parametrize("damage", ["content", "link", "folder"])
def test_a_file_of_an_earlier_download_is_checked_again(keep, wheel, tmp_path, damage):
    digest = hashlib.sha256(b"wheel").hexdigest()
    url = wheel.as_uri()
    there = tmp_path / "cache" / "mlflow-compute" / "packages" / digest
    members(keep(url, digest)) if damage == "content" else there.parent.mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    if damage == "content":
        there.write_bytes(b"other")
    elif damage == "link":
        there.symlink_to(secret)
    else:
        (there / "x").mkdir(parents=True)
    lock = keep(url, digest)
    if damage == "folder":
        with pytest.raises(EnvironmentSpecError, match="cannot be downloaded"):
            members(lock)
    else:
        assert b"secret" not in members(lock).values()
