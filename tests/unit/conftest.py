"""What several unit tests share: an API server on this machine's loopback, and the client that
talks to it.
"""

import pytest

from mlflow_backend.places.kubernetes.client.api import Cluster
from tests.bed.apiserver import ApiServer, write_kubeconfig


@pytest.fixture
def api():
    server = ApiServer()
    yield server
    server.close()


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch, api):
    """The path of a kubeconfig for `api`, in use."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    path = write_kubeconfig(tmp_path / "kubeconfig", server=api.url)
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@pytest.fixture
def cluster(kubeconfig):
    """The namespace `n` of `api`.

    `cluster.slept` holds the seconds that calls wanted to wait; nothing waits.
    """
    cluster = Cluster()
    cluster.slept = []
    cluster.connection.sleep = cluster.slept.append
    yield cluster
    cluster.close()
