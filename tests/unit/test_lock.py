"""Locks: the key depends on what is installed and on nothing else; the files are those of other
tools.
"""

import asyncio
import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.environment.lock_files.lock import (
    CondaPackage,
    Lock,
    PipPackage,
    conda_lock,
    key,
    pip_packages,
)

NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
HASHES = st.from_regex(r"[0-9a-f]{8}", fullmatch=True)
CONDA = st.builds(
    lambda name, version, build, digest: CondaPackage(
        name, version, build, "linux-64", f"https://a.example/linux-64/{name}-{version}-{build}.conda", digest
    ),
    NAMES, st.sampled_from(["1.0", "2"]), st.sampled_from(["h0_0", "py_1"]), HASHES,
)  # fmt: skip
PIP = st.builds(
    PipPackage,
    NAMES,
    st.sampled_from(["1.0", "2"]),
    st.lists(HASHES, min_size=1, max_size=3).map(tuple),
)
PYLOCK = """\
lock-version = "1.0"
created-by = "uv"

[[packages]]
name = "six"
version = "1.16.0"
sdist = { url = "https://a.example/six.tar.gz", hashes = { sha256 = "aa" } }
wheels = [{ url = "https://a.example/six.whl", upload-time = 2021-05-05T14:18:17Z, hashes = { sha256 = "bb" } }]

[[packages]]
name = "own"
vcs = { type = "git", url = "https://a.example/own", commit-id = "c0ffee" }
"""


@given(st.lists(CONDA, max_size=5), st.lists(PIP, max_size=5), st.randoms())
def test_neither_order_nor_place_count(conda, pip, order):
    moved = [
        dataclasses.replace(
            item,
            url=item.url.replace("a.example", "mirror.example/t"),
            depends=("x",),
            size_bytes=7,
        )
        for item in conda
    ]
    turned = [dataclasses.replace(item, hashes=tuple(reversed(item.hashes))) for item in pip]
    order.shuffle(moved)
    order.shuffle(turned)
    assert key("linux-64", "3.11", conda, pip) == key("linux-64", "3.11", moved + moved, turned)


@given(st.lists(CONDA, max_size=4), st.lists(PIP, max_size=4), CONDA, PIP)
def test_all_that_is_installed_counts(conda, pip, another, further):
    keys = {
        key("linux-64", "3.11", conda, pip),
        key("linux-64", "3.12", conda, pip),
        key("linux-aarch64", "3.11", conda, pip),
    }
    assert len(keys) == 3
    if another not in conda:
        assert key("linux-64", "3.11", [*conda, another], pip) not in keys
    if key("", None, (), [*pip, further]) != key("", None, (), pip):
        assert key("linux-64", "3.11", conda, [*pip, further]) not in keys
    assert key("linux-64", None, [dataclasses.replace(another, sha256="ff" * 4)], ()) != key(
        "linux-64", None, [another], ()
    )


def test_the_formatting_of_a_lock_does_not_count():
    other = PYLOCK.replace("2021-05-05T14:18:17Z", "2022-01-01T00:00:00Z").replace(
        'created-by = "uv"', 'created-by = "pip"\n# hello'
    )
    first, second = (Lock("linux-64", "3.11", pylock=text) for text in (PYLOCK, other))
    assert (
        first.key
        == second.key
        != Lock("linux-64", "3.11", pylock=PYLOCK.replace('"bb"', '"cc"')).key
    )


def test_what_a_pylock_installs():
    assert pip_packages(PYLOCK) == (
        PipPackage("own", "", ("git:c0ffee:",)),
        PipPackage("six", "1.16.0", ("sha256:bb",)),
    )
    assert pip_packages("") == ()


def test_conda_lock_is_the_same_text_for_the_same_packages_and_rattler_reads_it(tmp_path):
    import rattler

    packages = [
        CondaPackage(
            "b",
            "2.0",
            "h1_3",
            "noarch",
            "https://a.example/noarch/b-2.0-h1_3.conda",
            "bb" * 32,
            "ee" * 16,
            9,
            ("a >=1,<2", "c"),
        ),
        CondaPackage(
            "a",
            "1.10",
            "h0_0",
            "linux-64",
            "https://a.example/linux-64/a-1.10-h0_0.tar.bz2",
            "aa" * 32,
        ),
    ]
    text = conda_lock("linux-64", ["https://a.example"], packages)
    assert text == conda_lock("linux-64", ["https://a.example"], reversed(packages))
    assert [item["version"] for item in yaml.safe_load(text)["package"]] == ["1.10", "2.0"], (
        "versions are texts"
    )
    (tmp_path / "conda-lock.yml").write_text(text)

    async def load():
        environment = rattler.LockFile.from_path(tmp_path / "conda-lock.yml").default_environment()
        return environment.conda_repodata_records_for_platform(environment.platforms()[0])

    found = {record.name.normalized: record for record in asyncio.run(load())}
    assert (
        found["b"].sha256.hex() == "bb" * 32
        and found["a"].url == "https://a.example/linux-64/a-1.10-h0_0.tar.bz2"
    )


@pytest.mark.parametrize(("lock", "names"), [
    (Lock("linux-64", "3.11", pylock=PYLOCK), {"pylock.toml"}),
    (Lock("linux-64", None, (CondaPackage("a", "1", "0", "noarch", "u/noarch/a-1-0.conda", "aa"),)), {"conda-lock.yml"}),
    (Lock("linux-64", "3.11"), set()),
])  # fmt: skip
def test_only_files_that_install_something_are_written(lock, names):
    assert set(lock.files()) == names
