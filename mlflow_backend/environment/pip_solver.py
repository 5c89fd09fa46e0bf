"""Resolve Python requirements with uv for another platform: a PEP 751 lock."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from mlflow_backend.environment import index_access
from mlflow_backend.environment.lock import CondaPackage, load_toml
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.environment.spec import Spec
from mlflow_backend.errors import EnvironmentSpecError, redact, without_logins

PYTHONS = tuple(f"3.{minor}" for minor in range(14, 8, -1))
OF_CONDA = {
    "pytorch": "torch", "pytorch-cpu": "torch", "pytorch-gpu": "torch", "matplotlib-base": "matplotlib", "dask-core": "dask",
    "pyarrow-core": "pyarrow", "tensorflow-base": "tensorflow", "py-opencv": "opencv-python", "msgpack-python": "msgpack",
    "python-graphviz": "graphviz", "redis-py": "redis", "python-kubernetes": "kubernetes", "ruamel_yaml": "ruamel.yaml",
}  # fmt: skip
"""Conda packages that have another name in the Python index."""
MOST_LINES = 10


def python_version(wanted: str | None, source: Path) -> str:
    """The one version an environment is locked for: what is asked for, else this Python's, as MLflow does.

    Of a range (`>=3.10`) it is this Python's if that fits, else the newest that fits.
    """
    here = ".".join(map(str, sys.version_info[:2]))
    if not wanted:
        return here
    if re.fullmatch(r"\d+(\.\d+){0,2}", wanted):
        return wanted
    try:
        range_ = SpecifierSet(wanted.replace(" ", ""))
    except InvalidSpecifier:
        raise EnvironmentSpecError(f"{source}: python '{wanted}': write a version such as {here}, or a range such as >=3.10") from None
    found = next((version for version in (here, *PYTHONS) if f"{version}.99" in range_), None)
    if found is None:
        raise EnvironmentSpecError(f"{source}: python '{wanted}': no version fits; known: {', '.join(reversed(PYTHONS))}")
    return found


def compile_(spec: Spec, python: str, platform: Platform, conda: Sequence[CondaPackage], refresh: bool = False) -> str:
    """The lock (the text of a pylock.toml) of `spec.pip`, empty when all of it is there by conda already.

    What conda installs is a constraint and is not listed again. Raises
    EnvironmentSpecError with what collides, as uv says it, in at most ten lines.
    """
    given = dict(_python_packages(conda))
    with tempfile.TemporaryDirectory(prefix="mlflow-compute-") as folder:  # not the project's: its uv.toml must not choose indexes
        asked, output = Path(folder, "requirements.in"), Path(folder, "pylock.toml")
        constraints = [line[3:] for line in spec.pip if line.startswith("-c ")]
        asked.write_text("".join(f"{line}\n" for line in spec.pip if not line.startswith("-c ")))
        Path(folder, "constraints.txt").write_text(
            "".join(f"{line}\n" for line in constraints) + "".join(f"{name}=={version}\n" for name, version in given.items())
        )
        left_out = [word for name in given for word in ("--no-emit-package", name)]
        run_uv(
            ["pip", "compile", "--quiet", str(asked), "--constraints", str(Path(folder, "constraints.txt")), "--format", "pylock.toml",
             "--no-header", "--output-file", str(output), "--python-version", python, "--python-platform", platform.for_uv,
             "--no-python-downloads", *(["--refresh"] if refresh else []), *left_out],
            folder, spec.source,
        )  # fmt: skip
        text = without_logins(output.read_text())
    if not load_toml(text).get("packages"):
        return ""
    return text


def run_uv(arguments: Sequence[str], folder: str, source: Path) -> str:
    """Run uv with the user's own settings for indexes; its standard output. Raises EnvironmentSpecError with uv's words."""
    import uv

    command = [uv.find_uv_bin(), "--no-progress", "--color", "never", *arguments]
    process = subprocess.run(command, cwd=folder, env=index_access.for_uv(), capture_output=True, text=True)
    if process.returncode:
        raise EnvironmentSpecError(f"{source}: {_words(process.stderr, folder)}")
    return process.stdout


def _words(stderr: str, folder: str) -> str:
    """uv's explanation in at most ten lines; of a longer one its end, which is the conclusion."""
    text = redact(stderr).replace(f"{folder}/", "")
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("warning:")]
    if lines:
        lines[0] = lines[0].removeprefix("error: ")
    if len(lines) > MOST_LINES:
        lines = [lines[0], f"  ({len(lines) - MOST_LINES + 2} lines left out)", *lines[-(MOST_LINES - 2) :]]
    return "\n".join(lines)


def _python_packages(conda: Sequence[CondaPackage]):
    """Name and version, as the Python index has them, of the conda packages that are Python packages."""
    for package in conda:
        if any(re.match(r"python(_abi)?(\s|$)", item) for item in package.depends):
            try:
                yield canonicalize_name(OF_CONDA.get(package.name, package.name)), str(Version(package.version))
            except InvalidVersion:
                continue
