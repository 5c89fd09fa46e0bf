"""The marker of a ready environment: no other content counts as one."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_runner.environment import Slot

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["stamps", "key", "format", "bin", "\0"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    """An environment with one folder, and no marker."""
    path = tmp_path_factory.mktemp("cache") / "cafe"
    (path / "bin").mkdir(parents=True)
    return Slot(str(path))


def sealed(slot):
    """Seal the environment: the marker's content, and the stamp in it."""
    stamp = os.stat(f"{slot.path}/bin").st_mtime_ns
    slot.seal({"bin": stamp})
    with open(slot.marker) as file:
        return json.load(file), stamp


def state(slot, content):
    with open(slot.marker, "w") as file:
        file.write(content if isinstance(content, str) else json.dumps(content))
    return slot.state()


def test_a_sealed_environment_is_ready_until_a_folder_changes(slot):
    sealed(slot)
    assert slot.state() == "ready"
    marker, stamp = sealed(slot)
    assert state(slot, {**marker, "stamps": {"bin": stamp + 1}}) == "changed"
    assert state(slot, {**marker, "stamps": {"bin": stamp, "lib": stamp}}) == "changed"


@pytest.mark.parametrize(
    "change",
    [{"stamps": {}}, {"stamps": None}, {"stamps": []}, {"stamps": {"bin": None}}, {"stamps": {"bin": True}}, {"key": "other"}, {"key": None},
     {"format": 0}, {"format": None}],
)  # fmt: skip
def test_a_marker_with_another_content_is_not_ready(slot, change):
    marker, _ = sealed(slot)
    assert state(slot, {**marker, **change}) == "changed"


@pytest.mark.parametrize(
    "text", ["[]", "5", "null", '{"stamps": {}}', "", "{", "[" * 100_000, '"cafe"']
)
def test_other_content_is_never_an_error(slot, text):
    assert state(slot, text) == "changed"


@given(content=JSON)
def test_no_accidental_json_is_ready(slot, content):
    assert state(slot, content) == "changed"


@given(
    stamps=st.dictionaries(
        st.text(max_size=4),
        st.integers() | st.floats() | st.none() | st.text(max_size=2),
        max_size=2,
    )
)
def test_no_accidental_stamps_are_ready(slot, stamps):
    marker, stamp = sealed(slot)
    assert state(slot, {**marker, "stamps": stamps}) == (
        "ready" if stamps == {"bin": stamp} else "changed"
    )


def test_without_a_marker_the_environment_is_missing(tmp_path):
    (tmp_path / "cafe").mkdir()
    assert Slot(str(tmp_path / "cafe")).state() == "missing"
