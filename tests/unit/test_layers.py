"""Imports go downwards only: from each package to those below it, and never in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNNER = [
    "contract", "log", "processes", "tracking", "environment", "report", "fetch", "run", "__main__",
]  # fmt: skip
BACKEND = [
    "mlflow_internals", "addresses", "plain_text", "timestamps", "explanations", "errors", "debug", "credentials", "scratch", "progress",
    "yaml_files",
    "files", "targets", "request", "environment", "plan", "tracking", "supervision", "places", "controller", "cli",
    "backend",
]  # fmt: skip
"""From the lowest to the highest. What is in a list may import what comes before it."""
INSIDE = {
    "mlflow_backend.tracking": ["answers", "uris", "settings", "source"],
    "mlflow_backend.places": ["runner_zip", "local", "kubernetes"],
    "mlflow_backend.places.kubernetes": ["client", "objects", "diagnose"],
    "mlflow_backend.environment": [
        "urls", "toml_text", "checks", "cache", "platforms", "permissions",
        "parsers", "indexes", "lock_files", "solvers", "kinds", "locks", "staging",
    ],
}  # fmt: skip
"""The order inside of a package; what is not in a list comes after all that is."""
SOURCES = {
    "mlflow_runner": ROOT / "runner" / "mlflow_runner",
    "mlflow_backend": ROOT / "mlflow_backend",
}


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in SOURCES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(module: str, at_import: bool) -> Iterator[str]:
    """The modules of ours that `module` imports; `at_import`: those that it does not put off."""
    tree = ast.parse(MODULES[module].read_text())
    for node in tree.body if at_import else ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] in SOURCES
        ):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def layer(module: str) -> tuple[int, int]:
    package, *rest = module.split(".")
    order = RUNNER if package == "mlflow_runner" else BACKEND
    return list(SOURCES).index(package), order.index(rest[0]) if rest else -1


def test_every_folder_and_file_has_its_place_in_the_order():
    there = {module.split(".")[1] for module in MODULES if module.count(".")}
    assert there == {*RUNNER, *BACKEND}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downwards(module):
    upwards = [other for other in imports(module, False) if layer(other) > layer(module)]
    assert not upwards


@pytest.mark.parametrize("package", INSIDE)
def test_imports_inside_of_a_package_go_downwards(package):
    def rank(module: str) -> int:
        part = module.removeprefix(package + ".").split(".")[0]
        return INSIDE[package].index(part) if part in INSIDE[package] else len(INSIDE[package])

    inside = [module for module in MODULES if module.startswith(package + ".")]
    upwards = [
        f"{module} imports {other}"
        for module in inside
        for other in imports(module, False)
        if other in inside and rank(other) > rank(module)
    ]
    assert not upwards


def test_the_kubernetes_client_knows_no_mlflow():
    client = "mlflow_backend.places.kubernetes.client."
    known = {
        other for module in MODULES if module.startswith(client) for other in imports(module, False)
    }
    assert known <= {"mlflow_backend.errors", *(name for name in known if name.startswith(client))}


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: set(imports(module, True)) - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
