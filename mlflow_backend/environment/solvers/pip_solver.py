"""Resolve Python requirements with uv, for any platform, to a PEP 751 lock."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from mlflow_backend.environment import cache
from mlflow_backend.environment.lock_files import pylock
from mlflow_backend.environment.lock_files.lock import CondaPackage
from mlflow_backend.environment.parsers.requirements import split_hashes
from mlflow_backend.environment.parsers.spec import Spec
from mlflow_backend.environment.permissions import Permissions
from mlflow_backend.environment.platforms import Platform
from mlflow_backend.environment.solvers import pinned, uv_process
from mlflow_backend.environment.solvers.pinned import CONSTRAINT
from mlflow_backend.errors import EnvironmentSpecError

OF_CONDA = {
    "pytorch": "torch", "pytorch-cpu": "torch", "pytorch-gpu": "torch",
    "matplotlib-base": "matplotlib", "dask-core": "dask",
    "pyarrow-core": "pyarrow", "tensorflow-base": "tensorflow", "py-opencv": "opencv-python",
    "msgpack-python": "msgpack",
    "python-graphviz": "graphviz", "redis-py": "redis", "python-kubernetes": "kubernetes",
    "ruamel_yaml": "ruamel.yaml",
}  # fmt: skip
"""Names in the Python index of conda packages with another name."""
NO_PROJECT = '[project]\nname = "above"\nversion = "0"\n'
"""A pyproject.toml that ends uv's search for the workspace of a project."""


def compile_(
    spec: Spec,
    python: str,
    platform: Platform,
    conda: Sequence[CondaPackage],
    permissions: Permissions,
    refresh: bool = False,
) -> str:
    """The lock (the text of a pylock.toml) of `spec.pip`, empty if the conda packages satisfy all
    of it.

    Conda packages are constraints, and are not listed again. Raises EnvironmentSpecError with
    uv's explanation in at most ten lines.
    """
    from_conda = dict(_python_packages(conda))
    lines = _for_uv(spec, permissions)
    with cache.scratch_folder() as folder:
        requirements, constraints, output = (
            folder / name for name in ("requirements.in", "constraints.txt", "pylock.toml")
        )
        cache.write(requirements, _text(line for line in lines if not line.startswith(CONSTRAINT)))
        limits = [line.removeprefix(CONSTRAINT) for line in lines if line.startswith(CONSTRAINT)]
        limits += [f"{name}=={version}" for name, version in from_conda.items()]
        cache.write(constraints, _text(limits))
        omitted = [word for name in from_conda for word in ("--no-emit-package", name)]
        uv_process.run(
            ["pip", "compile", "--quiet", str(requirements), "--constraints", str(constraints),
             "--format", "pylock.toml", "--no-header", "--output-file", str(output),
             "--python-version", python, "--python-platform", platform.for_uv,
             "--no-python-downloads", *(["--refresh"] if refresh else []), *omitted],
            folder, spec.source, permissions,
        )  # fmt: skip
        content = pylock.read(output.read_text(encoding="utf-8"), str(spec.source))
    return pylock.write(pinned.check(content, spec.pip, spec.source))


def export(lock: str, project: str, source: Path) -> str:
    """The PEP 751 form of the texts of a uv.lock and its pyproject.toml. It sends no request and
    runs no code of the project.

    Raises EnvironmentSpecError with uv's words.
    """
    with cache.scratch_folder() as above:
        folder = above / "project"
        folder.mkdir(mode=0o700)
        for path, text in (
            (above / "pyproject.toml", NO_PROJECT),
            (folder / "pyproject.toml", project),
            (folder / "uv.lock", lock),
        ):
            cache.write(path, text.encode())
        arguments = [
            "export",
            "--quiet",
            "--frozen",
            "--offline",
            "--no-dev",
            "--no-emit-project",
            "--no-header",
            "--format",
            "pylock.toml",
        ]
        return uv_process.run(
            arguments, folder, source, Permissions(builds=False, credential_hosts=())
        )


def _for_uv(spec: Spec, permissions: Permissions) -> list[str]:
    """The lines for uv: without hashes, which `pinned` compares.

    Raises EnvironmentSpecError for a line that requests a build if builds are not allowed.
    """
    lines = []
    for line in spec.pip:
        name, _, value = line.partition(" ")
        if name == "--no-binary" and value != ":none:" and not permissions.builds:
            raise EnvironmentSpecError(
                f"{spec.source}: {line}: {uv_process.NOT_BUILT}",
                code="UnsupportedRequirement",
                hint=uv_process.ALLOW_BUILDS,
            )
        if name != pinned.REQUIRE:
            lines.append(split_hashes(line)[0])
    return lines


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _python_packages(conda: Sequence[CondaPackage]) -> Iterator[tuple[str, str]]:
    """Name and version in the Python index of each conda package that is a Python package."""
    for package in conda:
        if any(re.match(r"python(_abi)?(\s|$)", item) for item in package.depends):
            try:
                yield (
                    canonicalize_name(OF_CONDA.get(package.name, package.name)),
                    str(Version(package.version)),
                )
            except InvalidVersion:
                continue
