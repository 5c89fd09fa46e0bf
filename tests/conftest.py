"""Settings for all tests."""

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)  # a busy machine is no failure
settings.load_profile("default")


def pytest_collection_modifyitems(items):
    """Tests that share the one cluster are marked, and run one after the other; the others may run side by side."""
    for item in items:
        if "cluster_access" in item.fixturenames:
            item.add_marker(pytest.mark.cluster)
