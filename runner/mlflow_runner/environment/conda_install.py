"""The process that installs conda packages with rattler: a crash of native code must not end the
run.
"""

import asyncio
import hashlib
import os
import sys
import time
import urllib.parse
from typing import Any, Callable, Dict, List, Tuple

from mlflow_runner.log.output import PREFIX

SAY_EVERY_S = 2.0


def main(arguments: List[str]) -> int:
    """`conda-install LOCK PLATFORM PREFIX PACKAGES [FOLDER]`: link what the conda-lock.yml lists
    into PREFIX; the exit code.

    PACKAGES is the package cache, FOLDER contains rattler.
    """
    lock, platform, prefix, packages, *path = arguments
    sys.path += path
    try:
        import rattler  # noqa: F401 - whether it is installed
    except ImportError:
        print(
            f"{PREFIX}the project lists conda packages, and py-rattler is not installed: use an "
            "image that has uv and py-rattler",
            file=sys.stderr,
        )
        return 1
    try:
        asyncio.run(_install(lock, platform, prefix, packages))
        code = 0
    except Exception as error:  # rattler's exceptions share no base class
        print(f"{PREFIX}{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a crash of native code at the interpreter's exit must not change the result


async def _install(lock: str, platform: str, prefix: str, packages: str) -> None:
    import rattler

    default = rattler.LockFile.from_path(lock).default_environment()
    target = next(item for item in default.platforms() if item.name == platform)
    records = default.conda_repodata_records_for_platform(target)
    _check_files(records)
    await rattler.install(
        records,
        prefix,
        cache_dir=packages,
        platform=rattler.Subdir(platform),
        show_progress=False,
        execute_link_scripts=True,
        client=rattler.Client.authenticated_client(),
        reporter=_Reporter(len(records)),
    )


def _check_files(records: List[Any]) -> None:
    """Compare local files with the lock: rattler 0.28 checks only what it downloads.

    Raises ValueError, OSError.
    """
    for record in records:
        if record.url.startswith("file:") and record.sha256:
            with open(urllib.parse.unquote(urllib.parse.urlsplit(record.url).path), "rb") as file:
                digest = hashlib.sha256(file.read()).digest()
            if digest != record.sha256:
                raise ValueError(
                    f"hash mismatch for {record.url}: expected {record.sha256.hex()}, got "
                    f"{digest.hex()}"
                )


class _Reporter:
    """Prints the progress every few seconds, in whole lines.

    rattler calls the methods; the events without a method here return 0.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._fetched = self._linked = self._next_token = 0
        self._bytes: Dict[int, Tuple[int, int]] = {}
        self._said_at = time.monotonic()

    def on_download_start(self, _entry: Any) -> int:
        self._next_token += 1
        return self._next_token

    def on_download_progress(self, download: int, progress: int, total: int) -> None:
        self._bytes[download] = (progress, total or progress)
        self._say()

    def on_populate_cache_complete(self, _entry: Any) -> None:
        self._fetched += 1
        self._say()

    def on_link_complete(self, _index: Any) -> None:
        self._linked += 1
        self._say()

    def on_transaction_complete(self) -> None:
        self._say(last=True)

    def _say(self, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self._said_at >= SAY_EVERY_S:
            self._said_at = now
            done = sum(progress for progress, _ in self._bytes.values()) / 1e6
            size = sum(total for _, total in self._bytes.values()) / 1e6
            sizes = f" ({done:.0f} of {size:.0f} MB)" if size else ""
            verb = "linked" if self._linked else "fetched"
            print(
                f"{PREFIX}{verb} {self._linked or self._fetched} of {self._total} conda "
                f"packages{sizes}",
                flush=True,
            )

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name.startswith("on_"):
            return lambda *_: 0
        raise AttributeError(name)
