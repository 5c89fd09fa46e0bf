"""TOML as it is written: it reads back as what it was."""

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_backend.environment import toml_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.dates(min_value=datetime.date(1000, 1, 1))
    | st.datetimes(min_value=datetime.datetime(1000, 1, 1), timezones=st.none() | st.just(datetime.timezone.utc)) | st.times()
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=100)
@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_written_reads_back(content):
    assert toml_text.load(toml_text.dump(content)) == content


def test_each_value_stands_on_one_line():
    content = {
        "a": "1\n2",
        "packages": [{"name": "x", "wheels": [{"url": "u", "hashes": {"sha256": "00"}}]}, {}],
    }
    assert toml_text.dump(content) == (
        'a = "1\\n2"\n\n[[packages]]\nname = "x"\nwheels = [{ url = "u", hashes = { sha256 = "00" '
        "} }]\n\n[[packages]]\n"
    )


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 100_000, "a = " + "{b=" * 100_000, "a = 1e", "= 1"]
)
def test_other_text_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"nested|Expected|Invalid"):
        toml_text.load(text)
