"""What installing the package brings, and what loading it costs."""

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlflow_backend.environment import toml_text
from tests.bed.server import BIN

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves things behind in its source
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    )
    subprocess.run(
        [BIN / "uv", "build", "--quiet", "--wheel", "--out-dir", folder, source], check=True
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_client_and_runner_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        names = set(archive.namelist())
    assert tops == {"mlflow_backend", "mlflow_runner", wheel.name.split("-py3")[0] + ".dist-info"}
    for package in ("mlflow_backend", "runner/mlflow_runner"):
        sources = {
            path.relative_to((ROOT / package).parent).as_posix()
            for path in (ROOT / package).rglob("*.py")
        }
        assert sources <= names


@pytest.mark.parametrize("resolution", ["highest", "lowest-direct"])
def test_it_works_with_mlflow_skinny_alone(wheel, server, project, tmp_path, last_run, resolution):
    """With the newest versions of what it depends on, and with the oldest that it declares; all it
    imports is there.
    """
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [BIN / "uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "env"], check=True
    )
    wanted = ["--resolution", resolution, wheel]
    subprocess.run(
        [BIN / "uv", "pip", "install", "--quiet", "--python", python, *wanted], check=True
    )
    installed = subprocess.run(
        [BIN / "uv", "pip", "list", "--python", python, "--format", "json"],
        capture_output=True,
        check=True,
    )
    names = {item["name"] for item in json.loads(installed.stdout)}
    assert "mlflow-skinny" in names and not names & {
        "mlflow",
        "pandas",
        "flask",
        "docker",
        "sqlalchemy",
    }
    root = project("python -c 'import mlflow; mlflow.log_metric(\"m\", 1)'")
    command = [
        python.with_name("mlflow"),
        "run",
        root,
        "--backend",
        "compute",
        "-c",
        json.dumps({"USE_CONDA": False}),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_run().status == "FINISHED" and last_run().metrics["m"] == 1
    assert (
        subprocess.run(
            [python.with_name("mlflow-compute"), "targets"], capture_output=True
        ).returncode
        == 0
    )
    subprocess.run(
        [
            BIN / "uv",
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            *wanted[:2],
            f"{wheel}[controller,docker]",
        ],
        check=True,
    )
    imports = "\n".join(
        sorted({item.statement for item in third_party_imports() if item.distribution != "tomli"})
    )
    done = subprocess.run([python, "-c", imports], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


EXTRAS = {
    "mlflow_backend/controller": "controller",
    "mlflow_backend/places/kubernetes/image.py": "docker",
}
"""Folders and files that only an extra's user reaches."""
DISTRIBUTIONS = {
    "mlflow": "mlflow-skinny",
    "yaml": "pyyaml",
    "rattler": "py-rattler",
    "git": "gitpython",
    "prometheus_client": "prometheus-client",
}


class Import(NamedTuple):
    """An import statement of a module (`file`) that is neither ours nor of the standard library."""

    file: Path
    statement: str
    distribution: str


def third_party_imports():
    for path in (
        path
        for folder in ("mlflow_backend", "runner/mlflow_runner")
        for path in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [(alias.name, f"import {alias.name}") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [
                    (
                        node.module,
                        (
                            f"from {node.module} import "
                            f"{', '.join(alias.name for alias in node.names)}"
                        ),
                    )
                ]
            else:
                continue
            for name, statement in modules:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in (
                    "mlflow_backend",
                    "mlflow_runner",
                ):
                    yield Import(path, statement, DISTRIBUTIONS.get(top, top))


def declared(extra=None):
    """The names of the packages that pyproject.toml declares for all, or for an extra."""
    project = toml_text.load((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def test_every_import_is_of_a_declared_package():
    for item in third_party_imports():
        path = item.file.relative_to(ROOT).as_posix()
        extra = next((extra for start, extra in EXTRAS.items() if path.startswith(start)), None)
        assert item.distribution in declared() | (declared(extra) if extra else set()), (
            f"{item.file}: {item.statement}"
        )


def test_every_declared_package_is_imported_somewhere():
    imported = {item.distribution for item in third_party_imports()}
    used_otherwise = {"uv": "run as a program", "tomli": "imported for tomllib, under Python 3.10"}
    assert (
        declared() | declared("controller") | declared("docker") <= imported | used_otherwise.keys()
    )


def test_the_extras_of_developers_hold_those_of_users():
    assert declared("controller") | declared("docker") | declared("mlflow") <= declared("dev")


def test_no_release_of_mlflow_is_excluded():
    """An exclusion downgrades MLflow where it is installed already; pip and uv find a complete
    release by themselves.
    """
    files = [
        "pyproject.toml",
        "k8s/dev/tracking.yaml",
        "runner/Dockerfile",
        "examples/diabetes/python_env.yaml",
    ]
    assert [
        line
        for name in files
        for line in (ROOT / name).read_text().splitlines()
        if "mlflow" in line.lower() and "!=" in line
    ] == []


def test_loading_the_entry_point_imports_nothing_but_its_own_module():
    code = (
        "import sys, mlflow.projects, importlib.metadata as m\nbefore = set(sys.modules)\nnext(e "
        "for e in m.entry_points(group='mlflow.project_backend') if e.name == "
        "'compute').load()\nprint(sorted(name for name in set(sys.modules) - before))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert ast.literal_eval(out) == ["mlflow_backend", "mlflow_backend.backend"]


def test_a_run_here_imports_no_kubernetes_and_the_runner_only_the_standard_library(
    server, project, tmp_path
):
    code = (
        f"import sys, mlflow\nmlflow.projects.run({str(project('true'))!r}, backend='compute', "
        "backend_config={'USE_CONDA': False})\nprint([name for name in ('kubernetes', 'rich', "
        "'docker') if name in sys.modules])\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip().splitlines()[-1] == "[]"
    code = (
        "import sys, mlflow_runner.run.start, mlflow_runner.run.phases, mlflow_runner.run.closing, "
        "mlflow_runner.report.loop, mlflow_runner.tracking.rest, "
        "mlflow_runner.run.unpack, mlflow_runner.fetch\n"
    )
    code += (
        "print([n for n in sys.modules if n.split('.')[0] not in sys.stdlib_module_names | "
        "{'mlflow_runner', '__main__'}])\n"
    )
    isolated = [
        sys.executable,
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT / 'runner')!r})\n{code}",
    ]
    assert (
        subprocess.run(isolated, capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_the_command_tells_versions_and_completes():
    told = json.loads(
        subprocess.run(
            [BIN / "mlflow-compute", "version", "--json"], capture_output=True, check=True
        ).stdout
    )
    assert {"mlflow-compute", "mlflow-skinny", "kubernetes", "uv", "python"} <= set(told)
    completion = subprocess.run(
        [BIN / "mlflow-compute"],
        env={"_MLFLOW_COMPUTE_COMPLETE": "bash_source", "PATH": "/usr/bin:/bin"},
        capture_output=True,
    )
    assert b"complete" in completion.stdout


def test_targets_are_listed_with_where_they_are_defined(tmp_path, monkeypatch):
    path = tmp_path / "t.yaml"
    path.write_text("targets:\n  a: {image: i, resources: {gpu: 1}}\n")
    monkeypatch.setenv("MLFLOW_COMPUTE_CONFIG", str(path))
    monkeypatch.setenv("KUBECONFIG", "/none")
    table = subprocess.run([BIN / "mlflow-compute", "targets"], capture_output=True, text=True)
    assert (
        table.returncode == 0
        and str(path) in table.stdout
        and "gpu 1" in table.stdout
        and "could not be read" in table.stderr
    )
    listed = json.loads(
        subprocess.run(
            [BIN / "mlflow-compute", "targets", "--json"], capture_output=True, check=True
        ).stdout
    )
    assert listed == [{"name": "a", "source": str(path), "image": "i", "resources": {"gpu": 1}}]
    path.write_text("targets: [")
    broken = subprocess.run([BIN / "mlflow-compute", "targets"], capture_output=True, text=True)
    assert (
        broken.returncode == 1
        and f"{path}, line 1" in broken.stderr
        and "Traceback" not in broken.stderr
    )
