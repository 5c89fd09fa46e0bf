"""Which process runs `mlflow run`, and the run that it asks to continue."""

import click
import pytest

from mlflow_backend.request import command_line


def invoked(name, *options):
    """What `command_line` finds inside a click command of the name with these options, called with
    a run of its own.
    """
    found = []

    def body(**_):
        found.append((command_line.mlflow_run() is not None, command_line.given_run_id(None)))

    command = click.Command(
        name, params=[click.Option([f"--{option}"]) for option in options], callback=body
    )
    command.main(["--run-id", "its-own"], prog_name=name, standalone_mode=False)
    return found[0]


@pytest.mark.parametrize(("name", "options", "expected"), [
    ("run", ["run-id", "backend-config"], (True, "its-own")),
    ("run", ["run-id"], (False, None)),
    ("train", ["run-id", "backend-config"], (False, None)),
])  # fmt: skip
def test_only_mlflow_s_own_command_names_a_run_to_continue(name, options, expected):
    assert invoked(name, *options) == expected


def test_outside_of_a_command_the_backend_config_decides(monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "parent")
    assert command_line.given_run_id("r") == "r" and command_line.given_run_id(None) is None
