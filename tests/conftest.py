"""Settings for all tests."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)  # a busy machine is no failure
settings.load_profile("default")

FAULTS = Path(__file__).parent / "faults"
GROUPS = {"docker": "docker", "guarded": "policy", "controller": "controller"}
"""By fixture: what there is once in a cluster or on a machine.

Tests of a group run in one process: see `--dist loadgroup`.
"""


def pytest_configure():
    """Under `nohup` or in the background of a script, SIGHUP and SIGINT are ignored, and children
    inherit that; a handler of this process they do not.
    """
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    for item in items:
        if "cluster_access" in item.fixturenames:
            item.add_marker(pytest.mark.cluster)
        if FAULTS in item.path.parents:
            item.add_marker(pytest.mark.fault)
            item.add_marker(pytest.mark.xdist_group("faults"))
        for group in {GROUPS[name] for name in item.fixturenames if name in GROUPS}:
            item.add_marker(pytest.mark.xdist_group(group))
