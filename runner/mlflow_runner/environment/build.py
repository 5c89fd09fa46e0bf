"""The steps by which an environment is made from its lock: rattler links conda packages, uv the
Python ones.
"""

import importlib.util
import os
import re
import shutil
import sys
import tarfile
import time
from typing import Callable, Dict, List, NamedTuple, Optional

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
from mlflow_runner.environment import Place
from mlflow_runner.environment.lock_text import DEFAULT, staged_conda, staged_python, with_index
from mlflow_runner.processes.supervise import Supervisor

LEADING_ELSEWHERE = (
    "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "UV_CONFIG_FILE", "UV_ENV_FILE",
    "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON",
    "UV_SYSTEM_PYTHON", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY",
)  # fmt: skip
SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""What the image trusts, a company's own authority included; uv by itself trusts the public ones
only.
"""
NO_SPACE = (b"No space left on device", b"os error 28", b"Disk quota exceeded", b"os error 122")
STAGED = re.compile(r"(python|conda/[a-z0-9-]+)/[^./][^/\0]*")
"""Members of the archive of staged packages."""
EACH_PACKAGE = re.compile(rb"^ ([+~-] |Downloaded ).*\n", re.M)
"""uv's line for each package: they are in the lock."""


class Tools(NamedTuple):
    """What making an environment needs: where to, where for the moment, who runs commands, who is
    told, who fetches artifacts.
    """

    cache_dir: str
    scratch_dir: str
    supervisor: Supervisor
    say: Callable[[str], None]
    fetch: Callable[[str, str], None]


class Build:
    """One environment being made at its place, whose lock is held."""

    def __init__(self, environment: Environment, place: Place, tools: Tools):
        self._environment = environment
        self._place = place
        self._path = place.path
        self._tools = tools
        self._told = self._line = b""
        self._staged: Optional[str] = None

    def make(self) -> Dict[str, float]:
        """Run all steps; the seconds that each took.

        Raises RunnerError naming the one that failed.
        """
        environment = self._environment
        steps = (
            ("environment_fetch", self._unpack_staged, environment.packages is not None),
            ("environment_conda", self._conda, environment.python is None),
            ("environment_venv", self._venv, environment.python is not None),
            ("environment_pip", self._pip, environment.pip > 0),
        )
        spent = {}
        for name, step, needed in steps:
            if needed:
                start = time.monotonic()
                step()
                spent[name] = round(time.monotonic() - start, 4)
        return spent

    def _unpack_staged(self):
        """Everything comes from the run's own artifacts from now on."""
        archive, folder = (
            os.path.join(self._tools.scratch_dir, name) for name in ("packages.tar", "packages")
        )
        self._tools.fetch(self._environment.packages, archive)
        with tarfile.open(archive) as tar:
            for member in tar:
                if not member.isfile() or not STAGED.fullmatch(member.name):
                    raise RunnerError(
                        Cause.ENVIRONMENT_ERROR,
                        f"The staged packages have a member that is no package: {member.name!r}.",
                    )
                target = os.path.join(folder, member.name)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with tar.extractfile(member) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
        os.unlink(archive)
        self._staged = folder

    def _conda(self):
        lock = self._lock(
            CONDA_LOCK, lambda text: staged_conda(text, self._staged) if self._staged else text
        )
        packages = os.path.join(self._tools.cache_dir, "conda")
        arguments = [lock, self._environment.platform, self._path, packages, *_rattler_path()]
        argv = [sys.executable, "-I", sys.argv[0], "conda-install", *arguments]
        self._run(argv, "The project's conda packages could not be installed: see the lines above.")

    def _venv(self):
        wanted = self._environment.python
        here = ".".join(map(str, sys.version_info[:3]))
        # else uv looks for one, and may download it
        python = sys.executable if f"{here}.".startswith(f"{wanted}.") else wanted
        argv = [
            find_uv(),
            "venv",
            "--quiet",
            "--no-project",
            "--no-config",
            "--python",
            python,
            self._path,
        ]
        self._run(
            argv,
            f"Python {wanted} is not available: the image has {here} and uv could not install "
            "another version: see uv's lines above.",
        )

    def _pip(self):
        index = self._environment.index or DEFAULT
        lock = self._lock(
            PYLOCK,
            lambda text: (
                staged_python(text, self._staged) if self._staged else with_index(text, index)
            ),
        )
        python = os.path.join(self._path, "bin", "python")
        argv = [find_uv(), "pip", "install", "--no-progress", "--no-config", "--no-deps",
            "--break-system-packages",
                "--preview-features", "pylock", "--default-index", index, "--python", python,
                "--requirement", lock]  # fmt: skip
        self._run(
            argv, "The project's Python packages could not be installed: see uv's lines above."
        )

    def _lock(self, name: str, change: Callable[[str], str]) -> str:
        """The path of a copy of the lock file with `change` applied."""
        with open(os.path.join(self._environment.lock_dir, name), encoding="utf-8") as file:
            text = change(file.read())
        path = os.path.join(self._tools.scratch_dir, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _run(self, argv: List[str], failure: str):
        self._told = self._line = b""
        lock = (self._place.fd,)  # held by what still writes there, should we be killed
        code = self._tools.supervisor.run(
            argv, self._tools.scratch_dir, self._env(), listen=self._listen, pass_fds=lock
        ).code
        if code:
            raise RunnerError(
                Cause.ENVIRONMENT_ERROR, full(self._tools.cache_dir, self._told) or failure
            )

    def _listen(self, data: bytes) -> bytes:
        """Remember a tool's last words, and keep what is of use in the log."""
        self._told = (self._told + data)[-8192:]
        lines, end, self._line = (self._line + data).rpartition(b"\n")  # uv writes a line in pieces
        return EACH_PACKAGE.sub(b"", lines + end)

    def _env(self) -> Dict[str, str]:
        """The variables of uv and rattler: all that they write is on the cache's volume, so that
        they can link instead of copy.

        None leads uv to another folder, configuration or Python than it is told.
        """
        cache_dir = self._tools.cache_dir
        env = {name: value for name, value in os.environ.items() if name not in LEADING_ELSEWHERE}
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


def _rattler_path() -> List[str]:
    """The folder that rattler is installed in: an isolated Python (`-I`) does not look into a
    user's own site-packages.
    """
    found = importlib.util.find_spec("rattler")
    return (
        [os.path.dirname(item) for item in found.submodule_search_locations or ()] if found else []
    )


def full(cache_dir: str, told: bytes) -> str:
    """The sentence for a volume without space, where that is what `told` says; else empty."""
    if not any(words in told for words in NO_SPACE):
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
    found = sibling if os.access(sibling, os.X_OK) else shutil.which("uv")
    if not found:
        raise RunnerError(
            Cause.ENVIRONMENT_ERROR,
            "The project lists packages, and there is no uv here to install them: build the image "
            "from runner/Dockerfile.",
        )
    return found
