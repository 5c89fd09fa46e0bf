"""pod_template is merged onto the pod as kubectl would merge a strategic patch."""

from mlflow_backend.cluster.merge import strategic_merge

POD = {"spec": {"containers": [{"name": "run", "env": [{"name": "A", "value": "1"}]}], "volumes": [{"name": "tmp", "emptyDir": {}}]}}


def test_lists_with_a_merge_key_are_merged_item_by_item():
    patch = {"spec": {"containers": [{"name": "run", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]}]}}
    assert strategic_merge(POD, patch)["spec"]["containers"] == [
        {"name": "run", "env": [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}]}
    ]


def test_new_items_are_added_and_other_lists_replaced():
    patch = {"spec": {"volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}], "tolerations": [{"key": "gpu"}]}}
    merged = strategic_merge(strategic_merge(POD, {"spec": {"tolerations": [{"key": "old"}]}}), patch)
    assert [volume["name"] for volume in merged["spec"]["volumes"]] == ["tmp", "shm"]
    assert merged["spec"]["tolerations"] == [{"key": "gpu"}]


def test_null_removes_a_field_and_nothing_given_is_changed():
    before = {"spec": {"a": 1, "b": {"c": 2}}}
    assert strategic_merge(before, {"spec": {"a": None, "b": {"d": 3}}}) == {"spec": {"b": {"c": 2, "d": 3}}}
    assert before == {"spec": {"a": 1, "b": {"c": 2}}}
