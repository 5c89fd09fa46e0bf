"""The README's commands and tables are tried, not believed."""

import os
import re
import subprocess
from pathlib import Path

import yaml

from mlflow_backend.targets.target import Target
from mlflow_backend.targets.targets_file import parse
from tests.bed.server import BIN

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = [
    re.sub(r"(?m)^ {4}", "", block).strip()
    for block in re.findall(
        r"(?:(?<=\n\n))(?: "
        r"{4}.*\n(?:\n(?= "
        r"{4}))?)+",
        TEXT,
    )
]


def block(start: str) -> str:
    return next(text for text in BLOCKS if text.startswith(start))


def test_the_first_command_runs_the_example_here_and_the_second_there(
    cluster, cluster_access, seen, last_run
):
    here, there = block("mlflow run . --backend compute").splitlines()
    targets = yaml.safe_load(Path("mlflow-compute.yaml").read_text())["targets"]
    named = Path("targets.yaml").absolute()
    named.write_text(yaml.safe_dump({"targets": {"gpu-cluster": targets["dev-cluster"]}}))
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "MLFLOW_COMPUTE_CONFIG": str(named)}
    for command, target in ((here, "local"), (there, "gpu-cluster")):
        subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT / "examples/diabetes",
            env=env,
            check=True,
            timeout=280,
        )
        found = last_run()
        assert found.status == "FINISHED" and found.tags["compute.target"] == target
        assert found.metrics["r2"] > 0.3 and found.params["alpha"] == "0.5"
        assert found.artifact("predicted.png")[:4] == b"\x89PNG"
        assert len(found.run.outputs.model_outputs) == 1


def test_every_make_target_it_names_exists():
    named = set(re.findall(r"make ([a-z-]+)", TEXT))
    listed = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {"demo", "cluster", "demo-cluster", "cluster-down", "test", "bench"} <= named
    for target in named:
        assert re.search(rf"(?m)^{target}\b", listed), target


def test_the_targets_file_it_shows_is_one():
    targets = parse(block("tracking_uri:"), "README.md").targets
    assert (
        targets["gpu-cluster"].resources.gpu == 1
        and targets["gpu-cluster"].image == targets["cpu-cluster"].image
    )


def test_the_table_of_fields_is_complete():
    table = TEXT[TEXT.index("| field of a target") : TEXT.index("`--backend-config` takes")]
    named = {
        name.split(":")[0]
        for row in table.splitlines()[2:]
        for name in re.findall(r"`([a-z_]+)[`:]", row.split("|")[1] if "|" in row else "")
    }
    assert named == set(Target.model_fields) | {"extends"}


def test_the_map_of_the_code_names_what_is_there():
    for name in re.findall(
        r"(?m)^ {4,8}(\w+(?:/|\.py)[\w/.]*)\s", TEXT[TEXT.index("## The code") :]
    ):
        places = (
            ROOT / name,
            ROOT / "mlflow_backend" / name,
            ROOT / "runner" / name,
            ROOT / "runner/mlflow_runner" / name,
        )
        assert any(place.exists() for place in places), name
