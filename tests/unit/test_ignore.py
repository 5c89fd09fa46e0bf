"""Ignore files are read as git reads them: git itself is asked."""

import os
import subprocess

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlflow_backend.files.ignore import Rules

ALPHABET = "ab*?[]!-^/\\# ."
LINES = (
    st.text(ALPHABET, max_size=8) | st.text("ab*/", max_size=8) | st.text("a*[]!^-\\:", max_size=8)
)
NAMES = st.text("ab-]#!.* \\", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    return root


def ignored_by_git(root, patterns, paths):
    """Those of `paths` (a folder ends with a slash) that match a pattern which is not taken back,
    their folders left aside.
    """
    (root / ".gitignore").write_bytes(patterns)
    command = [
        "git",
        "-C",
        str(root),
        "check-ignore",
        "--no-index",
        "--verbose",
        "--non-matching",
        "-z",
        "--stdin",
    ]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(
        command, input="\0".join(paths).encode(), capture_output=True, env=environment
    )
    assert done.returncode in (0, 1), done.stderr
    fields = done.stdout.decode().split("\0")[:-1]
    return {path: pattern for _, _, pattern, path in zip(*[iter(fields)] * 4, strict=True)}


def decision(pattern):
    return None if pattern is None else not pattern.negated


def verdicts(patterns, paths):
    """As git decides, which looks at the folders around a path first: what is in an ignored one is
    ignored.
    """
    rules = Rules(patterns)
    found = {}
    for path in paths:
        parts = path.rstrip("/").split("/")
        found[path] = None
        for count in range(1, len(parts) + 1):
            is_folder = count < len(parts) or path.endswith("/")
            verdict = decision(rules.match(os.fsencode("/".join(parts[:count])), is_folder))
            found[path] = (
                verdict
                if verdict is not None
                else found[path]
                if count < len(parts) and found[path]
                else verdict
            )
            if verdict:
                break
    return found


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(LINES, max_size=4), paths=st.lists(PATHS, min_size=1, max_size=8, unique=True)
)
@example(["**/a", "a/**", "a/**/b", "!a/**/b", "**", "**/"], ["a", "b/a", "a/b", "a/a/b", "a/a"])
@example(["a**/b", "**a/b", "***/a"], ["a/b", "aa/b", "b/a/b", "b/b/a"])
@example(
    [
        "[a/b]a",
        "x[/]y",
        "a\\/b",
        "[]a]",
        "[!]a]",
        "[]-a]",
        "[a-]",
        "[[:alpha:]-a]",
        "[[:foo:]]",
        "[[:]a]",
        "[a",
    ],
    ["aa", "a/b", "]", "-", "["],
)
@example(["a\\ ", "b ", "a  ", "\\#", "\\!", "#", "!", "a\\"], ["a ", "b", "a", "#", "!", "a\\"])
@example(["/a", "b/", "/", "//a", "a//b", "/*", "!/b"], ["a", "b", "a/a", "b/b"])
def test_git_agrees(repository, lines, paths):
    patterns = "\n".join(lines).encode()
    asked = [path for path in paths if not path.startswith((":", "\\"))]
    theirs = ignored_by_git(repository, patterns, asked) if asked else {}
    ours = verdicts(patterns, asked)
    assert dict(ours.items()) == {
        path: None if not pattern else not pattern.startswith("!")
        for path, pattern in theirs.items()
    }


def verdict(text, path, is_folder=False):
    return decision(
        Rules(text if isinstance(text, bytes) else text.encode()).match(
            os.fsencode(path), is_folder
        )
    )


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("\ufeffa\n", "a", True),
        ("a\r\nb\r\n", "b", True),
        ("*.log\n!keep.log\n", "keep.log", False),
        ("!keep.log\n*.log\n", "keep.log", True),
        ("a/\n", "a", None),
        ("?", "é", None),
        ("[é]?", "é", True),
        (b"\xff*", "\udcffx", True),
        ("a" * 5000, "a" * 5000, None),
    ],
)
def test_lines_and_bytes(text, path, expected):
    assert verdict(text, path) is expected


def test_a_pattern_with_a_slash_at_its_end_is_for_folders():
    assert verdict("a/", "a", is_folder=True) is True and verdict("a/", "a") is None


@pytest.mark.timeout(60)  # the one that tries again needs longer than the universe has
@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 6 + "*b", "a" * 120),
        ("*a" * 2000 + "b", "a" * 4000),
        ("*?" * 100 + "b", "a" * 255),
        ("*[a-z]" * 100 + "b", "a" * 255),
        ("**/a/" * 100 + "b", "/".join("a" * 200)),
        ("**/*a*/" * 40 + "b", "/".join(["aaa"] * 200)),
        ("[[:" * 1300 + "]", "a"),
        ("\\" * 4000, "a"),
        ("a" + " " * 4000 + "b", "a"),
    ],
)
def test_no_pattern_takes_long(pattern, path):
    assert verdict("\n".join([pattern] * 20), path) in (None, True)


@pytest.mark.timeout(60)
def test_names_without_wildcards_are_looked_up_however_many_there_are():
    rules = Rules(
        b"".join(b"/image-%d.png\nname-%d\n" % (number, number) for number in range(30_000))
    )
    assert rules.cost == 0
    assert [
        decision(rules.match(b"image-%d.png" % number, False)) for number in range(29_000, 31_000)
    ].count(True) == 1_000
