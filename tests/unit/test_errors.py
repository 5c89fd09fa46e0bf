"""Error sentences: helpful, and without credentials."""

import pytest

from mlflow_backend.errors import ProjectError, hint, redact


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
    assert hint("imgae", ["image", "env"]) == "did you mean 'image'?"
    assert hint("COMPUTE2", ["compute", "x"]) == "did you mean 'compute'?"
    assert hint("zzz", ["image", "env"]) == "known: env, image"
    assert hint("zzz", []) == "known: none"
