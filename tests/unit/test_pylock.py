"""The lock as uv finds its cache by it."""

import tomllib

from mlflow_runner.environment.pylock import with_index

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
    before, after = tomllib.loads(LOCK), tomllib.loads(with_index(LOCK, "https://a.example/simple"))
    assert [package.pop("index", None) for package in after["packages"]] == [A, "https://own.example/simple", None, None, A]
    before["packages"][1].pop("index")
    assert after == before


def test_a_lock_without_packages_stays_as_it_is():
    assert with_index('lock-version = "1.0"\n') == 'lock-version = "1.0"\n'
