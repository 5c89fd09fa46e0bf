"""Locks with the index that names uv's cache, and with the paths of staged files."""

from mlflow_backend.environment.lock_files.lock import CondaPackage, conda_lock
from mlflow_backend.environment.toml_text import load
from mlflow_runner.environment.lock_text import staged_conda, staged_python, with_index

A = "https://a.example/simple"
LOCK = """\
lock-version = "1.0"
[[packages]]
name = "a"
version = "1"
wheels = [{ url = "https://a.example/a.whl", hashes = { sha256 = "aa" } }]

[[packages]]
name = "b"
index = "https://own.example/simple"

[[packages]]
name = "c"
vcs = { type = "git", url = "https://a.example/c", commit-id = "c0ffee" }

[[packages]]
name = "d"
[packages.directory]
path = "d"

[[packages]]
name = "e"
[[packages.wheels]]
url = "https://a.example/e.whl"
index = "not of the package"

[tool.x]
name = "x"
"""


def test_every_package_of_an_index_names_one_and_nothing_else_changes():
    before, after = load(LOCK), load(with_index(LOCK, "https://a.example/simple"))
    assert [package.pop("index", None) for package in after["packages"]] == [
        A,
        "https://own.example/simple",
        None,
        None,
        A,
    ]
    before["packages"][1].pop("index")
    assert after == before


def test_a_lock_without_packages_stays_as_it_is():
    assert with_index('lock-version = "1.0"\n') == 'lock-version = "1.0"\n'


def test_staged_files_take_the_place_of_addresses():
    wheels = load(staged_python(LOCK, "/there"))["packages"][0]["wheels"]
    assert wheels == [{"path": "/there/python/a.whl", "hashes": {"sha256": "aa"}}]
    local = (
        'wheels = [{ url = "https://a.example/torch-2.4.0%2Bcu121-py3-none-any.whl#x", hashes '
        "= {} }]"
    )
    assert staged_python(local, "/there") == (
        'wheels = [{ path = "/there/python/torch-2.4.0+cu121-py3-none-any.whl", hashes = {} }]'
    )
    packages = [
        CondaPackage(
            "a", "1", "0", "noarch", f"https://a.example/{'x' * 2000}/noarch/a-1-0.conda", "aa"
        )
    ]
    text = staged_conda(conda_lock("linux-64", ["https://a.example"], packages), "/there")
    assert "  url: file:///there/conda/noarch/a-1-0.conda\n" in text and "xx" not in text
    assert "- url: https://a.example\n" in text, "the channels stay as they are"
