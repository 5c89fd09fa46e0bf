"""pod_template is merged onto the pod as kubectl would merge a strategic patch."""

import json
import math
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlflow_backend.places.kubernetes.objects.merge import MERGE_KEYS, strategic_merge
from mlflow_backend.targets.target import Target

NAMES = st.sampled_from(
    sorted(MERGE_KEYS) + sorted(set(MERGE_KEYS.values())) + ["$patch", "labels"]
)

POD = {
    "spec": {
        "containers": [{"name": "run", "env": [{"name": "A", "value": "1"}]}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
}


def deep(levels):
    return {} if levels == 0 else {"x": deep(levels - 1)}


def test_lists_with_a_merge_key_are_merged_item_by_item():
    patch = {
        "spec": {
            "containers": [
                {"name": "run", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]}
            ]
        }
    }
    assert strategic_merge(POD, patch)["spec"]["containers"] == [
        {"name": "run", "env": [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}]}
    ]


def test_new_items_are_added_and_other_lists_replaced():
    patch = {
        "spec": {
            "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
            "tolerations": [{"key": "gpu"}],
        }
    }
    merged = strategic_merge(
        strategic_merge(POD, {"spec": {"tolerations": [{"key": "old"}]}}), patch
    )
    assert [volume["name"] for volume in merged["spec"]["volumes"]] == ["tmp", "shm"]
    assert merged["spec"]["tolerations"] == [{"key": "gpu"}]


def test_null_removes_a_field_and_nothing_given_is_changed():
    before = {"spec": {"a": 1, "b": {"c": 2}}}
    assert strategic_merge(before, {"spec": {"a": None, "b": {"d": 3}}}) == {
        "spec": {"b": {"c": 2, "d": 3}}
    }
    assert before == {"spec": {"a": 1, "b": {"c": 2}}}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.dates()
    | st.binary(max_size=2),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(NAMES | st.integers(), below, max_size=3)
    ),
    max_leaves=12,
)


@given(
    JSON
    | st.dictionaries(
        st.sampled_from(["spec", "metadata"]), st.dictionaries(NAMES, JSON, max_size=3)
    )
)
def test_whatever_a_target_accepts_can_be_merged_and_sent(template):
    try:
        target = Target(pod_template=template)
    except ValidationError:
        return
    merged = strategic_merge(POD, target.pod_template)
    json.dumps(merged, allow_nan=False)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            {"volumes": [True]},
            "unknown key 'volumes': write 'metadata' or 'spec', and a pod's fields below them",
        ),
        ({"spec": ["x"]}, "spec: ['x'] is not a mapping: write fields below it"),
        ({"metadata": "x"}, "metadata: 'x' is not a mapping: write fields below it"),
        (
            {"spec": {"volumes": [True]}},
            "spec.volumes.0: has no 'name': write fields with 'name', which identifies the item",
        ),
        ({"spec": {"volumes": {"name": "x"}}}, "spec.volumes: {'name': 'x'} is not a list"),
        (
            {"spec": {"containers": [{"image": "x"}]}},
            "spec.containers.0: has no 'name': write fields with 'name', which identifies the item",
        ),
        (
            {"spec": {"initContainers": [{"name": "x", "env": ["A=1"]}]}},
            "spec.initContainers.0.env.0: has no 'name': write fields with 'name', which identifies the item",
        ),
        (
            {"spec": {"hostAliases": [{"hostnames": []}]}},
            "spec.hostAliases.0: has no 'ip': write fields with 'ip', which identifies the item",
        ),
        ({"spec": {1: "x"}}, "spec: the key 1 is not text: write it in quotes"),
        (
            {"spec": {"x": [date(2024, 1, 1)]}},
            "spec.x.0: a date is not a JSON value: write it in quotes",
        ),
        ({"spec": {"x": math.inf}}, "spec.x: inf is not a JSON number"),
        ({"spec": deep(60)}, "spec: is nested deeper than 50 levels"),
    ],
)
def test_a_template_of_another_shape_is_refused_with_the_place(template, words):
    with pytest.raises(ValidationError) as error:
        Target(pod_template=template)
    assert error.value.errors()[0]["msg"] == f"Value error, {words}"


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ({"$patch": "replace"}, ""),
        ({"spec": {"containers": [{"name": "x", "$patch": "delete"}]}}, "spec.containers.0: "),
        ({"spec": {"$retainKeys": ["x"]}}, "spec: "),
        ({"spec": {"$setElementOrder/containers": [{"name": "x"}]}}, "spec: "),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}, "metadata: "),
    ],
)
def test_the_directives_of_kubectl_patch_are_refused(template, place):
    with pytest.raises(ValidationError) as error:
        Target(pod_template=template)
    message = error.value.errors()[0]["msg"]
    assert message.startswith(f"Value error, {place}'$") and message.endswith(
        "' is not supported: write the field itself, or null to remove a field"
    )
