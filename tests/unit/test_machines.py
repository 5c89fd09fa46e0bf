"""The names of one processor in conda, the kernel and Kubernetes."""

import pytest

from mlflow_runner.contract.machines import subdir


@pytest.mark.parametrize(
    ("system", "name", "expected"),
    [
        ("linux", "x86_64", "linux-64"),
        ("linux", "AMD64", "linux-64"),
        ("linux", "aarch64", "linux-aarch64"),
        ("linux", "arm64", "linux-aarch64"),
        ("linux", "ppc64le", "linux-ppc64le"),
        ("linux", "riscv64", "linux-riscv64"),
        ("darwin", "arm64", "osx-arm64"),
        ("darwin", "x86_64", "osx-64"),
    ],
)
def test_a_machine_has_the_subdir_of_conda(system, name, expected):
    assert subdir(system, name) == expected
