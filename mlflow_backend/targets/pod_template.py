"""The structure of a target's `pod_template`: a pod's metadata and spec as plain JSON, with lists
that can be merged.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow_backend.targets.validation import InvalidValue, Location

POD_LISTS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
CONTAINER_LISTS = {
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
}
"""The patchMergeKey of each list in Kubernetes' PodSpec and Container; a merge replaces every other
list.
"""

MOST_DEPTH = 50
DIRECTIVES = ("$patch", "$retainKeys", "$setElementOrder", "$deleteFromPrimitiveList")
"""Keys that only `kubectl patch` understands
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md).
"""


def check(template: dict[str, Any]) -> dict[str, Any]:
    """The template itself. Raises InvalidValue that names the wrong entry."""
    for path, value in _walk(template):
        _check_value(path, value)
    for key in template:
        if key not in ("metadata", "spec"):
            raise InvalidValue(
                f"unknown key '{key}'", "write 'metadata' or 'spec', and a pod's fields below them"
            )
    _as_mapping(template.get("metadata"), "metadata")
    spec = _as_mapping(template.get("spec"), "spec")
    _check_lists(spec, POD_LISTS, "spec")
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            _check_lists(container, CONTAINER_LISTS, f"spec.{kind}.{index}")
    return template


def check_json(value: Any) -> Any:
    """The value itself.

    Raises InvalidValue if it is not JSON: YAML also has dates, sets, bytes and infinity.
    """
    for path, entry in _walk(value):
        _check_type(path, entry)
    return value


def _check_value(path: str, value: Any) -> None:
    _check_type(path, value)
    if isinstance(value, Mapping):
        directive = next((key for key in value if key.startswith(DIRECTIVES)), None)
        if directive:
            raise InvalidValue(
                f"{_prefix(path)}'{directive}' is not supported",
                "write the field itself, or null to remove a field",
            )


def _check_type(path: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidValue(
                    f"{_prefix(path)}the key {key!r} is not text", "write it in quotes"
                )
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidValue(f"{_prefix(path)}{value} is not a JSON number")
    elif value is not None and not isinstance(value, (str, int, float, bool, list, tuple)):
        raise InvalidValue(
            f"{_prefix(path)}a {type(value).__name__} is not a JSON value", "write it in quotes"
        )


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Every value below `root` with its dotted path, without recursion."""
    pending: list[tuple[Location, Any]] = [((), root)]
    while pending:
        path, value = pending.pop()
        if len(path) > MOST_DEPTH:
            raise InvalidValue(f"{path[0]}: is nested deeper than {MOST_DEPTH} levels")
        yield ".".join(map(str, path)), value
        if isinstance(value, Mapping):
            pending += [((*path, key), entry) for key, entry in value.items()]
        elif isinstance(value, (list, tuple)):
            pending += [((*path, index), entry) for index, entry in enumerate(value)]


def _as_mapping(value: Any, path: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{path}: {value!r:.50} is not a mapping", "write fields below it")
    return value


def _check_lists(fields: Mapping[str, Any], lists: Mapping[str, str], path: str) -> None:
    for name, key in lists.items():
        items = fields.get(name)
        if items is None:
            continue
        if not isinstance(items, (list, tuple)):
            raise InvalidValue(f"{path}.{name}: {items!r:.50} is not a list")
        for index, item in enumerate(items):
            if not isinstance(item, Mapping) or not isinstance(item.get(key), (str, int)):
                raise InvalidValue(
                    f"{path}.{name}.{index}: has no '{key}'",
                    f"write fields with '{key}', which identifies the item",
                )


def _prefix(path: str) -> str:
    return f"{path}: " if path else ""
