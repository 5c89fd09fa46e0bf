"""Error sentences: helpful, and without credentials."""

import ast
import json
import pickle
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner
from mlflow.exceptions import ExecutionException

from mlflow_backend import explanations
from mlflow_backend.cli import main
from mlflow_backend.errors import ConfigError, ProjectError, nearest, raise_as_mlflow, redact
from mlflow_runner.contract.causes import Cause


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ada:secret@host/x.git", "https://host/x.git"),
        (
            "see git://token@host and http://a:b@h:5000/p?q",
            "see git://host and http://h:5000/p?***",
        ),
        (
            "ada@example.com wrote to https://host.example/a@b",
            "ada@example.com wrote to https://host.example/a@b",
        ),
        ("nothing here", "nothing here"),
    ],
)
def test_credentials_of_a_uri_are_not_shown(text, shown):
    assert redact(text) == shown
    assert str(ProjectError(text)) == shown


def test_a_hint_names_the_nearest_word_or_all():
    assert nearest("imgae", ["image", "env"]) == "did you mean 'image'?"
    assert nearest("COMPUTE2", ["compute", "x"]) == "did you mean 'compute'?"
    assert nearest("zzz", ["image", "env"]) == "known: env, image"
    assert nearest("zzz", []) == "known: none"


ROOT = Path(__file__).parents[2]


def _words():
    """Every text constant of the client's code, but for the explanations themselves."""
    for path in (ROOT / "mlflow_backend").rglob("*.py"):
        if path.name != "explanations.py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_every_code_is_explained_and_used():
    """mypy checks that each code that is used is one."""
    codes = set(get_args(explanations.Code))
    assert codes == set(explanations.EXPLANATIONS)
    assert codes - set(_words()) == set()


def test_every_cause_is_explained():
    assert set(explanations.CAUSES) == set(Cause)


def test_the_document_of_errors_is_the_one_that_the_explanations_print():
    assert (ROOT / "docs" / "errors.md").read_text() == explanations.document() + "\n"


def test_an_error_has_fields_that_show_no_credentials():
    error = ConfigError(
        "at https://ada:secret@host/x\nbad", code="UnknownField", hint="try https://a:b@host"
    )
    assert str(error) == "at https://host/x bad: try https://host"
    assert error.fields() == {
        "code": "UnknownField",
        "message": "at https://host/x bad",
        "hint": "try https://host",
        "doc": "mlflow-compute explain UnknownField",
    }
    assert pickle.loads(pickle.dumps(error)).fields() == error.fields()


def test_the_fields_reach_who_calls_mlflow():
    with pytest.raises(ExecutionException) as raised, raise_as_mlflow():
        raise ProjectError("no", code="NotFound")
    assert raised.value.__cause__.fields()["code"] == "NotFound"


def test_a_command_explains_a_word_and_says_what_it_does_not_know():
    run = CliRunner().invoke
    assert "memory" in run(main, ["explain", "oomkilled"]).output
    assert "UnknownField" in run(main, ["explain"]).output
    failed = run(main, ["explain", "--json", "UnknownFeld"])
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["error"] == {
        "code": "NotFound",
        "message": "there is no code or cause 'UnknownFeld'",
        "hint": "did you mean 'UnknownField'?",
        "doc": "mlflow-compute explain NotFound",
    }
    assert "did you mean 'UnknownField'?" in failed.stderr
