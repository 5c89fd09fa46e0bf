"""The platform that an environment is locked for."""

import pytest

from mlflow_backend.environment import platforms
from mlflow_backend.environment.platforms import Platform, of_target, of_this_machine
from mlflow_backend.targets.target import Target


@pytest.mark.parametrize(
    ("fields", "subdir", "packages"),
    [
        ({}, "linux-64", {"__glibc": "2.28", "__archspec": "1=x86_64"}),
        ({"node_selector": {"kubernetes.io/arch": "arm64"}}, "linux-aarch64", {"__glibc": "2.28"}),
        (
            {"platform": "linux-ppc64le", "node_selector": {"kubernetes.io/arch": "arm64"}},
            "linux-ppc64le",
            {},
        ),
        ({"resources": {"gpu": 1}}, "linux-64", {"__cuda": "12"}),
        (
            {"virtual_packages": {"__glibc": "2.36", "__cuda": "13.0"}},
            "linux-64",
            {"__glibc": "2.36", "__cuda": "13.0"},
        ),
    ],
)
def test_a_target_says_what_it_is(fields, subdir, packages):
    found = of_target(Target(**fields))
    assert found.subdir == subdir and packages.items() <= found.virtual_packages.items()


def test_a_gpu_of_another_maker_is_no_cuda():
    assert (
        "__cuda"
        not in of_target(Target(gpu_resource="amd.com/gpu", resources={"gpu": 1})).virtual_packages
    )


def test_a_linux_machine_locks_as_a_default_target_does(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr("os.path.exists", lambda path: False)
    assert of_this_machine() == of_target(Target())
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.17"))
    assert of_this_machine().virtual_packages["__glibc"] == "2.17"


def test_a_mac_locks_for_itself(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("platform.mac_ver", lambda: ("14.5", ("", "", ""), "arm64"))
    assert of_this_machine() == Platform("osx-arm64", {"__unix": "0", "__osx": "14.5"})


@pytest.mark.parametrize(
    ("subdir", "glibc", "for_uv"),
    [("linux-64", "2.28", "x86_64-manylinux_2_28"), ("linux-aarch64", "2.36", "aarch64-manylinux_2_36"),
     ("linux-64", "2.26", "x86_64-manylinux_2_17"), ("linux-64", "2.99", "x86_64-manylinux_2_40"), ("osx-arm64", "2.28", "aarch64-apple-darwin"),
     ("osx-64", "2.28", "x86_64-apple-darwin")],
)  # fmt: skip
def test_the_same_platform_for_uv(subdir, glibc, for_uv):
    assert Platform(subdir, {"__glibc": glibc}).for_uv == for_uv


def test_uv_knows_all_platforms_that_are_named_to_it(tmp_path):
    import subprocess

    import uv

    (tmp_path / "empty.in").touch()
    for minor in platforms.MANYLINUX:
        name = Platform("linux-64", {"__glibc": f"2.{minor}"}).for_uv
        subprocess.run(
            [
                uv.find_uv_bin(),
                "pip",
                "compile",
                "-q",
                "--python-platform",
                name,
                tmp_path / "empty.in",
            ],
            check=True,
        )
