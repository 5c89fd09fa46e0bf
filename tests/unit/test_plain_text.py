"""Text from elsewhere cannot move the cursor, hide words or add lines."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.plain_text import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("exp [/x]", "exp [/x]"),
        ("Größe 數據 👍 e\u0301", "Größe 數據 👍 e\u0301"),
        ("a\xa0b", "a\xa0b"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("one\ntwo\r\tthree", r"one\ntwo\r\tthree"),
        ("a\u202eb\u2028c\x9b", r"a\u202eb\u2028c\x9b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_written_as_its_escape(text, shown):
    assert plain(text) == shown


@given(st.text())
def test_no_text_keeps_a_character_that_a_terminal_obeys(text):
    shown = plain(text)
    assert {unicodedata.category(character) for character in shown}.isdisjoint(
        {"Cc", "Cf", "Cs", "Zl", "Zp"}
    )
    assert len(shown.splitlines()) <= 1 and plain(shown) == shown
