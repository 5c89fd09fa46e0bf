"""What a target's `pod_template` may hold: a pod's metadata and spec as plain JSON, in the shapes
that a merge can rely on.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

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
"""The patchMergeKey of each list in Kubernetes' PodSpec and Container; every other list is replaced
by a merge.
"""

MOST_DEPTH = 50
DIRECTIVES = ("$patch", "$retainKeys", "$setElementOrder", "$deleteFromPrimitiveList")
"""Keys that only `kubectl patch` understands
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md).
"""


def check(template: dict[str, Any]) -> dict[str, Any]:
    """The template itself. Raises ValueError with the place in it and what to write there."""
    for path, value in _walk(template):
        _check_value(path, value)
    for key in template:
        if key not in ("metadata", "spec"):
            raise ValueError(
                f"unknown key '{key}': write 'metadata' or 'spec', and a pod's fields below them"
            )
    _mapping(template.get("metadata"), "metadata")
    spec = _mapping(template.get("spec"), "spec")
    _check_lists(spec, POD_LISTS, "spec")
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            _check_lists(container, CONTAINER_LISTS, f"spec.{kind}.{index}")
    return template


def check_json(value: Any) -> Any:
    """The value itself.

    Raises ValueError where it is no JSON: YAML has dates, sets, bytes and infinity too.
    """
    for path, below in _walk(value):
        _check_type(path, below)
    return value


def _check_value(path: str, value: Any) -> None:
    _check_type(path, value)
    if isinstance(value, Mapping):
        directive = next((key for key in value if key.startswith(DIRECTIVES)), None)
        if directive:
            raise ValueError(
                f"{_named(path)}'{directive}' is not supported: write the field itself, or null to "
                "remove one"
            )


def _check_type(path: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{_named(path)}the key {key!r} is no text: write it in quotes")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{_named(path)}{value} is no number that Kubernetes knows")
    elif value is not None and not isinstance(value, (str, int, float, bool, list, tuple)):
        raise ValueError(
            f"{_named(path)}a {type(value).__name__} is no value that Kubernetes knows: write it "
            "in quotes"
        )


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Every value below `root` with its dotted path, without calling itself for each level."""
    pending = [((), root)]
    while pending:
        path, value = pending.pop()
        if len(path) > MOST_DEPTH:
            raise ValueError(f"{path[0]}: is nested deeper than {MOST_DEPTH} levels")
        yield ".".join(map(str, path)), value
        if isinstance(value, Mapping):
            pending += [((*path, key), below) for key, below in value.items()]
        elif isinstance(value, (list, tuple)):
            pending += [((*path, index), below) for index, below in enumerate(value)]


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{path}: write fields below it, found {value!r:.50}")
    return value or {}


def _check_lists(fields: Mapping[str, Any], lists: Mapping[str, str], path: str) -> None:
    for name, key in lists.items():
        items = fields.get(name)
        if items is None:
            continue
        if not isinstance(items, (list, tuple)):
            raise ValueError(f"{path}.{name}: write a list, found {items!r:.50}")
        for index, item in enumerate(items):
            if not isinstance(item, Mapping) or not isinstance(item.get(key), (str, int)):
                raise ValueError(
                    f"{path}.{name}.{index}: write fields with '{key}', which tells the item from "
                    "the others"
                )


def _named(path: str) -> str:
    return f"{path}: " if path else ""
