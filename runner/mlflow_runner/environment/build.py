"""The steps that build an environment from its lock: rattler links conda packages, uv installs
Python packages.
"""

import importlib.util
import os
import re
import shutil
import sys
import tarfile
import time
from functools import partial
from typing import Callable, Dict, List, NamedTuple, Tuple

from mlflow_runner.contract.causes import Cause
from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.contract.submission import (
    CA_BUNDLE,
    CONDA_LOCK,
    NETRC,
    PYLOCK,
    RATTLER_AUTH,
    Environment,
)
from mlflow_runner.environment import Slot
from mlflow_runner.environment.lock_text import DEFAULT, staged_conda, staged_python, with_index
from mlflow_runner.processes.supervise import Supervisor

MISLEADING = (
    "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "UV_CONFIG_FILE", "UV_ENV_FILE",
    "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON",
    "UV_SYSTEM_PYTHON", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY",
)  # fmt: skip
"""Variables that make uv use another folder, configuration or Python than its arguments say."""
SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""The authorities that the image trusts, such as a company's own; uv by default trusts only the
public ones.
"""
NO_SPACE = (b"No space left on device", b"os error 28", b"Disk quota exceeded", b"os error 122")
STAGED = re.compile(r"(python|conda/[a-z0-9-]+)/[^./][^/\0]*")
"""Members of the archive of staged packages."""
EACH_PACKAGE = re.compile(rb"^ ([+~-] |Downloaded ).*\n", re.M)
"""uv's line for each package; the lock has them already."""
TAIL_BYTES = 8192


class Tools(NamedTuple):
    """What a build uses: the cache, a temporary folder, the supervisor that runs commands, `say`
    (a line for the log) and `fetch` (artifact, path), which downloads.
    """

    cache_dir: str
    scratch_dir: str
    supervisor: Supervisor
    say: Callable[[str], None]
    fetch: Callable[[str, str], None]


class Build:
    """Builds one environment in its slot, whose exclusive lock this process has."""

    def __init__(self, environment: Environment, slot: Slot, tools: Tools) -> None:
        self._environment = environment
        self._slot = slot
        self._tools = tools
        self._tail = self._line = b""
        self._staged = ""

    def run(self) -> Dict[str, float]:
        """Run all steps; the seconds of each.

        Raises RunnerError naming the step that failed.
        """
        spent = {}
        for name, step in self._steps():
            start = time.monotonic()
            step()
            spent[name] = round(time.monotonic() - start, 4)
        return spent

    def _steps(self) -> List[Tuple[str, Callable[[], None]]]:
        environment = self._environment
        steps: List[Tuple[str, Callable[[], None]]] = []
        if environment.packages is not None:
            steps.append(("environment_fetch", partial(self._fetch_staged, environment.packages)))
        if environment.python is None:
            steps.append(("environment_conda", self._install_conda))
        else:
            steps.append(("environment_venv", partial(self._create_venv, environment.python)))
        if environment.pip:
            steps.append(("environment_pip", self._install_pip))
        return steps

    def _fetch_staged(self, artifact: str) -> None:
        """Download the staged packages; the following steps use them instead of the indexes."""
        archive = os.path.join(self._tools.scratch_dir, "packages.tar")
        self._staged = os.path.join(self._tools.scratch_dir, "packages")
        self._tools.fetch(artifact, archive)
        unpack_staged(archive, self._staged)
        os.unlink(archive)

    def _install_conda(self) -> None:
        lock = self._copy_lock(
            CONDA_LOCK, lambda text: staged_conda(text, self._staged) if self._staged else text
        )
        packages = os.path.join(self._tools.cache_dir, "conda")
        arguments = [lock, self._environment.platform, self._slot.path, packages, *_rattler_path()]
        argv = [sys.executable, "-I", sys.argv[0], "conda-install", *arguments]
        self._run(argv, "The project's conda packages could not be installed: see the lines above.")

    def _create_venv(self, version: str) -> None:
        own = ".".join(map(str, sys.version_info[:3]))
        # for a version, uv searches for a Python and may download it
        python = sys.executable if f"{own}.".startswith(f"{version}.") else version
        argv = [find_uv(), "venv", "--quiet", "--no-project", "--no-config",
                "--python", python, self._slot.path]  # fmt: skip
        self._run(
            argv,
            f"Python {version} is not available: the image has {own} and uv could not install "
            "another version: see uv's lines above.",
        )

    def _install_pip(self) -> None:
        index = self._environment.index or DEFAULT
        lock = self._copy_lock(
            PYLOCK,
            lambda text: (
                staged_python(text, self._staged) if self._staged else with_index(text, index)
            ),
        )
        python = os.path.join(self._slot.path, "bin", "python")
        argv = [find_uv(), "pip", "install", "--no-progress", "--no-config", "--no-deps",
                "--break-system-packages",
                "--preview-features", "pylock", "--default-index", index, "--python", python,
                "--requirement", lock]  # fmt: skip
        self._run(
            argv, "The project's Python packages could not be installed: see uv's lines above."
        )

    def _copy_lock(self, name: str, change: Callable[[str], str]) -> str:
        """The path of a copy of the lock file with `change` applied."""
        with open(os.path.join(self._environment.lock_dir, name), encoding="utf-8") as file:
            text = change(file.read())
        path = os.path.join(self._tools.scratch_dir, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _run(self, argv: List[str], failure: str) -> None:
        """Raises RunnerError with the sentence `failure`, or with that of a full volume."""
        self._tail = self._line = b""
        # if the runner is killed, the lock stays with the tool that still writes to the slot
        lock = (self._slot.fd,)
        code = self._tools.supervisor.run(
            argv, self._tools.scratch_dir, self._env(), listen=self._listen, pass_fds=lock
        ).code
        if code:
            message = describe_full_volume(self._tools.cache_dir, self._tail) or failure
            raise RunnerError(Cause.ENVIRONMENT_ERROR, message)

    def _listen(self, data: bytes) -> bytes:
        """Keep the end of a tool's output; the lines of it that are useful in the log."""
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        lines, end, self._line = (self._line + data).rpartition(b"\n")  # uv writes a line in pieces
        return EACH_PACKAGE.sub(b"", lines + end)

    def _env(self) -> Dict[str, str]:
        """The variables of uv and rattler: they write only to the cache's volume, so that they can
        link instead of copy.
        """
        cache_dir = self._tools.cache_dir
        env = {name: value for name, value in os.environ.items() if name not in MISLEADING}
        env["UV_CACHE_DIR"] = os.path.join(cache_dir, "uv")
        env["UV_PYTHON_INSTALL_DIR"] = os.path.join(cache_dir, "python")
        for theirs, ours in (("NETRC", NETRC), ("RATTLER_AUTH_FILE", RATTLER_AUTH)):
            if ours in env:
                env[theirs] = env[ours]
        own = os.path.join(self._environment.lock_dir, CA_BUNDLE)
        if os.path.exists(own):
            env["SSL_CERT_FILE"] = own
        elif os.path.exists(SYSTEM_CERTIFICATES):
            env.setdefault("SSL_CERT_FILE", SYSTEM_CERTIFICATES)
        return env


def unpack_staged(archive: str, folder: str) -> None:
    """Unpack the tar of staged packages to `folder`.

    Raises RunnerError for a member that is not the file of a package.
    """
    with tarfile.open(archive) as tar:
        for member in tar:
            is_package = member.isfile() and STAGED.fullmatch(member.name)
            source = tar.extractfile(member) if is_package else None
            if source is None:
                raise RunnerError(
                    Cause.ENVIRONMENT_ERROR,
                    "The archive of staged packages contains a member that is not a package: "
                    f"{member.name!r}.",
                )
            target = os.path.join(folder, member.name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with source, open(target, "wb") as file:
                shutil.copyfileobj(source, file)


def _rattler_path() -> List[str]:
    """The folder that contains rattler, for an isolated Python (`-I`), which ignores a user's own
    site-packages.
    """
    spec = importlib.util.find_spec("rattler")
    folders = spec.submodule_search_locations if spec else None
    return [os.path.dirname(item) for item in folders or ()]


def describe_full_volume(cache_dir: str, output: bytes) -> str:
    """The sentence for a full volume if that is what `output` says; else empty."""
    if not any(words in output for words in NO_SPACE):
        return ""
    return (
        f"The volume of the cache {cache_dir} is full "
        f"({shutil.disk_usage(cache_dir).total / 1e9:.1f} GB): enlarge it, set 'size_limit' of the "
        "target's cache, or remove environments with: mlflow-compute env clean."
    )


def find_uv() -> str:
    """The uv in the folder of this Python, else the first on PATH.

    Raises RunnerError when there is none.
    """
    sibling = os.path.join(os.path.dirname(sys.executable), "uv")
    uv = sibling if os.access(sibling, os.X_OK) else shutil.which("uv")
    if not uv:
        raise RunnerError(
            Cause.ENVIRONMENT_ERROR,
            "The project lists packages, and uv is not installed: use an image that has uv and "
            "py-rattler.",
        )
    return uv
