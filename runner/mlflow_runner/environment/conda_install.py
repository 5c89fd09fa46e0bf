"""The process that installs conda packages: rattler, kept apart because a fault in native code must
not end the run.
"""

import asyncio
import hashlib
import os
import sys
import time
import urllib.parse

from mlflow_runner.log.output import PREFIX

SAY_EVERY_S = 2.0


def main(arguments) -> int:
    """`conda-install LOCK PLATFORM PREFIX PACKAGES [FOLDER]`: link what the conda-lock.yml lists
    into PREFIX.

    PACKAGES is the package cache, FOLDER where rattler is installed.
    """
    lock, platform, prefix, packages, *path = arguments
    sys.path += path
    try:
        import rattler  # noqa: F401
    except ImportError:
        print(
            f"{PREFIX}there is no py-rattler here to install conda packages: build the image from "
            "runner/Dockerfile",
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
    os._exit(code)  # a crash of native code while the interpreter ends must not change the result


async def _install(lock, platform, prefix, packages):
    import rattler

    default = rattler.LockFile.from_path(lock).default_environment()
    found = next(item for item in default.platforms() if item.name == platform)
    records = default.conda_repodata_records_for_platform(found)
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


def _check_files(records):
    """Compare files of this machine with the lock: rattler does so for what it downloads only (seen
    with 0.28).
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
    """Says every few seconds how far it is, in lines that a log can hold."""

    def __init__(self, total):
        self._total = total
        self._fetched = self._linked = self._next_token = 0
        self._bytes = {}
        self._said_at = time.monotonic()

    def on_download_start(self, _entry):
        self._next_token += 1
        return self._next_token

    def on_download_progress(self, download, progress, total):
        self._bytes[download] = (progress, total or progress)
        self._say()

    def on_populate_cache_complete(self, _entry):
        self._fetched += 1
        self._say()

    def on_link_complete(self, _index):
        self._linked += 1
        self._say()

    def on_transaction_complete(self):
        self._say(last=True)

    def _say(self, last=False):
        now = time.monotonic()
        if last or now - self._said_at >= SAY_EVERY_S:
            self._said_at = now
            got = sum(progress for progress, _ in self._bytes.values()) / 1e6
            wanted = sum(total for _, total in self._bytes.values()) / 1e6
            sizes = f" ({got:.0f} of {wanted:.0f} MB)" if wanted else ""
            verb = "linked" if self._linked else "fetched"
            print(
                f"{PREFIX}{verb} {self._linked or self._fetched} of {self._total} conda "
                f"packages{sizes}",
                flush=True,
            )

    def __getattr__(self, name):
        if name.startswith("on_"):
            return lambda *_: 0
        raise AttributeError(name)
