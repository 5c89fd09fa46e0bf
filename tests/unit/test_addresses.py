"""Which addresses mean this machine."""

import pytest

from mlflow_backend.addresses import is_loopback, is_of_this_machine


@pytest.mark.parametrize("host", [
    "localhost", "LocalHost.", "localhost.localdomain", "mlflow.localhost", "127.0.0.1", "127.9.9.9", "127.1", "::1",
    "::ffff:127.0.0.1",
])  # fmt: skip
def test_these_are_this_machine_alone(host):
    assert is_loopback(host) and is_of_this_machine(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])
def test_who_connects_to_what_a_server_listens_on_means_this_machine(host):
    assert is_of_this_machine(host) and not is_loopback(host)


@pytest.mark.parametrize("host", [
    "", "mlflow", "10.0.0.1", "localhost.example.org", "127.example.org", "notlocalhost", "128.0.0.1", "::2", "1.2.3.4.5",
])  # fmt: skip
def test_these_are_others(host):
    assert not is_loopback(host) and not is_of_this_machine(host)
