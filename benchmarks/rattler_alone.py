"""`rattler_alone.py LOCK PREFIX PACKAGES`: what installing conda packages is compared with:
rattler's install and nothing else.
"""

import asyncio
import os
import sys

import rattler

lock, prefix, packages = sys.argv[1:]
environment = rattler.LockFile.from_path(lock).default_environment()
records = environment.conda_repodata_records_for_platform(environment.platforms()[0])
asyncio.run(rattler.install(records, prefix, cache_dir=packages, show_progress=False))
os._exit(0)  # ending the interpreter crashed once
