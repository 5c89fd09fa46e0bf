"""Strategic merge, as `kubectl patch --type strategic` does it without its `$` directives, for the
parts of a pod.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_backend.targets.pod_template import CONTAINER_LISTS, POD_LISTS

Object = Mapping[str, Any]
MERGE_KEYS = {**POD_LISTS, **CONTAINER_LISTS}


def strategic_merge(base: Object, patch: Object) -> dict[str, Any]:
    """`base` with `patch` (as `pod_template.check` accepts it) merged onto it; a null removes a
    field, neither argument is changed.
    """
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = strategic_merge(below if isinstance(below, Mapping) else {}, value)
        elif key in MERGE_KEYS and _are_named(value, MERGE_KEYS[key]):
            merged[key] = _merge_lists(merged.get(key) or [], value, MERGE_KEYS[key])
        else:
            merged[key] = value
    return merged


def _are_named(items: Any, merge_key: str) -> bool:
    """Other lists may bear the same name elsewhere in a pod."""
    return isinstance(items, (list, tuple)) and all(
        isinstance(item, Mapping) and merge_key in item for item in items
    )


def _merge_lists(
    base: Sequence[Object], patch: Sequence[Object], merge_key: str
) -> list[dict[str, Any]]:
    merged = [dict(item) for item in base]
    places = {item.get(merge_key): index for index, item in enumerate(merged)}
    for item in patch:
        index = places.get(item.get(merge_key))
        if index is None:
            merged.append(strategic_merge({}, item))
        else:
            merged[index] = strategic_merge(merged[index], item)
    return merged
