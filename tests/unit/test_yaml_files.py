"""YAML of others: read as PyYAML reads it, or refused with one line; never for long, never with
much memory.
"""

import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.errors import ConfigError, ProjectError
from mlflow_backend.yaml_files import MOST_DEPTH, line_of, parse, read

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.dates(),
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(st.text() | st.integers(), below, max_size=4)
    ),
    max_leaves=15,
)
LAUGHS = "".join(
    f"{name}: &{name} [{', '.join(['*' + below] * 9)}]\n"
    for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def refused(text, as_text=False):
    with pytest.raises(ConfigError) as error:
        parse(text, "file.yaml", ConfigError, as_text)
    assert "\n" not in str(error.value)
    return str(error.value)


@given(VALUES)
def test_what_pyyaml_writes_is_read_as_it_was(value):
    assert parse(yaml.safe_dump(value), "file", ConfigError).content == value


@given(st.text() | st.text(alphabet="&*!<:[]{}-,?|>'\"ab1. \n"))
def test_any_text_is_read_or_refused_in_one_line(text):
    for as_text in (False, True):
        try:
            parse(text, "file", ConfigError, as_text)
        except ConfigError as error:
            line = str(error)
        else:
            continue
        assert "\n" not in line and line.startswith("file")


def test_scalars_are_text_where_that_is_asked_for():
    text = "python: 3.10\non: yes\n"
    assert parse(text, "file", ConfigError, as_text=True).content == {"python": "3.10", "on": "yes"}
    assert parse(text, "file", ConfigError).content == {"python": 3.1, True: True}
    assert parse("", "file", ConfigError) == (None, None)


@pytest.mark.parametrize("as_text", [False, True])
def test_aliases_that_multiply_are_refused_before_they_do(as_text):
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n" + LAUGHS
    assert refused(text, as_text) == (
        "file.yaml, line 5: aliases add more than 10000 entries: correct the YAML"
    )


def test_merge_keys_that_multiply_are_refused_before_they_do():
    merges = "".join(
        f"{name}: &{name}\n  <<: [{', '.join(['*' + below] * 9)}]\n"
        for below, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "aliases add more than 10000 entries" in refused("a: &a {x: 1, y: 2}\n" + merges)


def test_aliases_that_are_used_as_meant_are_read():
    text = "base: &base {a: 1, b: [1, 2]}\none: *base\ntwo: {<<: *base, a: 2}\n"
    assert parse(text, "file", ConfigError).content["two"] == {"a": 2, "b": [1, 2]}


def test_a_thing_that_holds_itself_is_refused():
    assert refused("a: &a [b, *a]\n") == (
        "file.yaml, line 1: an alias refers to an entry that contains it: correct the YAML"
    )


@pytest.mark.parametrize(
    "text", ["[" * 3000, "{a: " * 3000, "- " * 3000, "".join(" " * n + "a:\n" for n in range(3000))]
)
def test_deep_nesting_is_refused(text):
    assert "nested deeper than 100 levels" in refused(text)


def test_depth_by_aliases_counts_as_depth():
    chain = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000))
    assert refused(chain) == (
        "file.yaml, line 101: is nested deeper than 100 levels: correct the YAML"
    )


def test_the_deepest_that_is_allowed_is_read():
    text = "[" * (MOST_DEPTH - 1) + "x" + "]" * (MOST_DEPTH - 1)
    assert str(parse(text, "file", ConfigError).content).count("[") == MOST_DEPTH - 1


@pytest.mark.parametrize("number", ["1" * 5000, "1:" + "1:" * 100_000 + "1", "1_" * 5000 + "1"])
def test_a_number_of_any_length_costs_nothing(number):
    assert "a number is too long" in refused(f"a: {number}\n")


@pytest.mark.parametrize(
    "value", ["2024-13-01", "!!bool x", "!!int ''", "!!timestamp x", "!!float x"]
)
def test_a_value_that_is_not_of_its_type_is_refused(value):
    assert refused(f"a: {value}\n").endswith(": write it in quotes")


@pytest.mark.parametrize(
    "text",
    [
        "{[a]: b}",
        "{{a: b}: c}",
        "a: !!python/object:os.system x",
        "a: b\n---\nc: d\n",
        "a: *b",
        "\x00",
    ],
)
def test_what_is_no_plain_document_is_refused(text):
    assert refused(text).startswith("file.yaml") and refused(text).endswith(": correct the YAML")


def test_the_line_of_an_entry_is_known_also_in_lists():
    root = parse("a:\n  b:\n  - x\n  - c: 1\n", "file", ConfigError).root
    assert [line_of(root, path) for path in ((), ("a",), ("a", "b"), ("a", "b", 1), ("a", "b", 1, "c"), ("a", "z"), ("q",))] == [
        1, 1, 2, 4, 4, 1, 1,
    ]  # fmt: skip


def test_a_file_is_utf_8_with_or_without_its_mark(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_bytes("\ufeffa: é\n".encode())
    assert read(path, ProjectError) == "a: é\n"
    path.write_bytes(b"a: b\nc: \xff\n")
    with pytest.raises(
        ProjectError,
        match=r"^.*file.yaml, line 2: is not UTF-8: save the file as "
        r"UTF-8$",
    ):
        read(path, ProjectError)


def test_what_is_no_file_or_too_large_is_refused_without_reading_it(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, words in (
        (tmp_path / "fifo", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(ProjectError, match=words):
            read(path, ProjectError)
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(ProjectError, match="is larger than 0 MB"):
        read(tmp_path / "large", ProjectError, 10)
