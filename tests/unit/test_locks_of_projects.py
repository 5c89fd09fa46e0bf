"""Locks that come with a project: checked where they are read, and refused in one line."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_backend.environment import kinds, toml_text
from mlflow_backend.environment.lock_files import contents, lock, pylock
from mlflow_backend.environment.permissions import Permissions
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.errors import EnvironmentSpecError

LINUX = Platform("linux-64", {})
CLUSTER = Permissions(builds=False, credential_hosts=())
SHA = "ab" * 32
WHEEL = {"url": "https://a.example/a-1-py3-none-any.whl", "hashes": {"sha256": SHA}}
PYLOCK = {
    "lock-version": "1.0",
    "created-by": "x",
    "requires-python": ">=3.10",
    "packages": [{"name": "a", "version": "1", "wheels": [WHEEL]}],
}
CONDA = {
    "name": "b", "version": "2.0", "manager": "conda", "platform": "linux-64", "dependencies": {"c": ">=1"}, "category": "main",
    "url": "https://c.example/own/linux-64/b-2.0-h1_3.conda", "hash": {"sha256": SHA, "md5": "cd" * 16},
}  # fmt: skip
PIP = {
    **CONDA,
    "name": "a",
    "version": "1",
    "manager": "pip",
    "url": WHEEL["url"],
    "hash": {"sha256": SHA},
}
CONDA_LOCK = {
    "version": 1,
    "metadata": {"channels": [{"url": "https://c.example/own"}]},
    "package": [CONDA, PIP],
}
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["", "x", "../x", "https://[", "file:///etc", SHA, "\0"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


@pytest.fixture
def read(tmp_path):
    """The Lock of a project with these files."""

    def call(**files):
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content)
        return kinds.detect(tmp_path, {}).lock(LINUX, "3", CLUSTER, False).lock

    return call


def as_pylock(content):
    return {"pylock__toml": toml_text.dump(content)}


def as_conda_lock(content):
    return {"conda-lock__yml": yaml.safe_dump(content)}


def changed(content, path, value):
    """A copy with the entry at `path` (keys and indexes) replaced."""
    copy = json.loads(json.dumps(content))
    inner = copy
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return copy


def paths(content, at=()):
    """The path of every entry."""
    for key, value in (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    ):
        yield (*at, key)
        yield from paths(value, (*at, key))


def test_locks_are_read(read):
    assert read(**as_pylock(PYLOCK)).pip == (lock.PipPackage("a", "1", (f"sha256:{SHA}",)),)


def test_a_conda_lock_is_read_with_its_pip_packages(read):
    found = read(**as_conda_lock(CONDA_LOCK))
    assert found.conda == (
        lock.CondaPackage(
            "b", "2.0", "h1_3", "linux-64", CONDA["url"], SHA, "cd" * 16, 0, ("c >=1",)
        ),
    )
    assert [package.name for package in found.pip] == ["a"] and found.channels == (
        "https://c.example/own",
    )


@pytest.mark.parametrize(
    "hashes",
    [{"sha256": "../../../.ssh"}, {"sha256": SHA[:-1]}, {"sha256": SHA + "a"}, {"sha256": SHA + "\n"}, {"sha256": ""}, {"sha256": 5}, {"md5": SHA},
     {"crc": "00"}, {}, {"sha256": SHA, "md5": "../x"}],
)  # fmt: skip
def test_a_hash_with_another_number_of_digits_is_refused(read, hashes):
    for path in (("packages", 0, "wheels", 0, "hashes"),):
        with pytest.raises(EnvironmentSpecError):
            read(**as_pylock(changed(PYLOCK, path, hashes)))
    for number in (0, 1):
        with pytest.raises(EnvironmentSpecError):
            read(**as_conda_lock(changed(CONDA_LOCK, ("package", number, "hash"), hashes)))


@pytest.mark.parametrize(
    "url",
    ["https://a.example/..", "https://a.example/%2e%2e", "https://a.example/x%2Fy.whl", "https://a.example/", "https://a.example", "a.whl", "/a.whl",
     "ftp://a.example/a.whl", "https:///a.whl", "https://a.example/a b.whl", 'https://a.example/".whl', "https://evil.example\\@a.example/a.whl",
     "https://a.example/%00.whl", "https://a.example/.a.whl", "https://a.example:x/a.whl"],
)  # fmt: skip
def test_an_address_without_a_plain_file_name_is_refused(read, url):
    with pytest.raises(EnvironmentSpecError):
        read(**as_conda_lock(changed(CONDA_LOCK, ("package", 0, "url"), url)))
    content = changed(PYLOCK, ("packages", 0, "wheels", 0, "url"), url)
    with pytest.raises(EnvironmentSpecError):
        list(staged_names(read(**as_pylock(content))))


def staged_names(found):
    from mlflow_backend.environment import checks

    return [checks.file_name(url, "lock") for url in pylock.addresses(toml_text.load(found.pylock))]


def test_a_login_in_an_address_is_not_kept(read, tmp_path):
    secret = "https://ada:sesame@a.example/t/token/own/linux-64/b-2.0-h1_3.conda"
    files = as_conda_lock(
        changed(
            changed(CONDA_LOCK, ("package", 0, "url"), secret),
            ("metadata", "channels", 0),
            "https://x:sesame@a.example/own",
        )
    )
    found = read(**files)
    assert "sesame" not in str(found) and "token" not in str(found)
    assert kinds.detect(tmp_path, {}).addresses(LINUX).further == (
        "https://x:sesame@a.example/own",
        secret,
    )
    (tmp_path / "conda-lock.yml").unlink()
    found = read(
        **as_pylock(
            changed(
                PYLOCK,
                ("packages", 0, "wheels", 0, "url"),
                "https://ada:sesame@a.example/a-1-py3-none-any.whl",
            )
        )
    )
    assert "sesame" not in found.pylock
    assert kinds.detect(tmp_path, {}).addresses(LINUX).further == (
        "https://ada:sesame@a.example/a-1-py3-none-any.whl",
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [({"name": "a", "directory": {"path": "."}}, "a: a path of this machine"), ({"name": "a", "archive": {"path": "x.whl"}}, "a: a path of this machine"),
     ({"name": "a", "wheels": [{"path": "x.whl", "hashes": {"sha256": SHA}}]}, ("a: a path of this "
                                                                               "machine")), ({"name": "a"}, "a: has no file"),
     ({"name": "a", "vcs": {"type": "git", "url": "file:///x", "commit-id": "c0"}}, "'url' is 'file:///x'"), ({}, "has no 'name'")],
)  # fmt: skip
def test_what_cannot_be_installed_elsewhere_is_refused(read, entry, words):
    with pytest.raises(EnvironmentSpecError) as error:
        read(**as_pylock({**PYLOCK, "packages": [entry]}))
    assert words in str(error.value)


def test_every_file_of_a_lock_is_checked_when_it_is_shown(tmp_path):
    (tmp_path / "conda-lock.yml").write_text(
        yaml.safe_dump({"version": 1, "package": [{"name": "a"}]})
    )
    with pytest.raises(EnvironmentSpecError, match="package 1: has no 'platform'"):
        contents.packages({"conda-lock.yml": tmp_path / "conda-lock.yml"})


def one_line(error):
    assert "\n" not in str(error.value if hasattr(error, "value") else error) and str(error)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(sorted(paths(PYLOCK), key=str)), value=ANYTHING)
def test_any_value_at_any_place_of_a_pylock_is_read_or_refused(tmp_path, path, value):
    try:
        (tmp_path / "pylock.toml").write_text(
            toml_text.dump(without_null(changed(PYLOCK, path, value)))
        )
    except UnicodeEncodeError:
        return
    check(tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(sorted(paths(CONDA_LOCK), key=str)), value=ANYTHING)
def test_any_value_at_any_place_of_a_conda_lock_is_read_or_refused(tmp_path, path, value):
    (tmp_path / "conda-lock.yml").write_text(yaml.safe_dump(changed(CONDA_LOCK, path, value)))
    check(tmp_path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["conda-lock.yml", "pylock.toml", "python_env.yaml", "conda.yaml"]),
    data=st.binary(max_size=60),
)
def test_any_bytes_are_read_or_refused(tmp_path, name, data):
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / name).write_bytes(data)
    check(tmp_path)


def check(folder: Path):
    """What a submit reads of a project's files before it solves anything."""
    kind = kinds.detect(folder, {})
    try:
        kind.inputs(LINUX, "3")
        kind.addresses(LINUX)
        if isinstance(kind, kinds.Exact):
            found = kind.lock(LINUX, "3", CLUSTER, False).lock
            assert len(found.key) == 64
            for content in found.files().values():
                content.decode()
    except EnvironmentSpecError as error:
        one_line(error)


def without_null(value):
    if isinstance(value, dict):
        return {key: without_null(item) for key, item in value.items() if item is not None}
    return (
        [without_null(item) for item in value if item is not None]
        if isinstance(value, list)
        else value
    )
