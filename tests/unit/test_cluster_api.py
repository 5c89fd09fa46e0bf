"""Which cluster is meant."""

import pytest
import yaml

from mlflow_backend.cluster.api import connect
from mlflow_backend.errors import ClusterError


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    """Write a kubeconfig with one context and use it from now on."""

    def use(name, namespace):
        path = tmp_path / f"{name}.yaml"
        cluster = {"server": f"https://{name}.example.com"}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": name,
                    "clusters": [{"name": name, "cluster": cluster}],
                    "users": [{"name": name, "user": {"username": "u"}}],
                    "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
                }
            )
        )
        monkeypatch.setenv("KUBECONFIG", str(path))
        return path

    return use


def test_a_change_of_kubeconfig_counts_at_once(kubeconfig):
    kubeconfig("first", "one")
    first = connect()
    assert (first.context, first.namespace) == ("first", "one") and connect() is first, "connections stay open"
    kubeconfig("second", "two")
    assert (connect().context, connect().namespace) == ("second", "two")
    assert connect(namespace="mine").namespace == "mine"
    path = kubeconfig("second", "three")
    path.touch()
    assert connect().namespace == "three"


def test_a_context_or_file_that_is_not_there_is_named(kubeconfig, monkeypatch):
    kubeconfig("first", "one")
    with pytest.raises(ClusterError, match="'prod'"):
        connect("prod")
    monkeypatch.setenv("KUBECONFIG", "/none/kubeconfig")
    with pytest.raises(ClusterError, match="/none/kubeconfig"):
        connect()
