"""No credential of a URL survives in a line that people read."""

import urllib.parse

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mlflow_backend.errors import redact, without_logins
from mlflow_runner.contract.redact import HOST

WHITE_SPACE = " \t\r\n\v\f"
SECRET = st.text(
    st.characters(exclude_characters=WHITE_SPACE, exclude_categories=["Cs"]),
    min_size=1,
    max_size=30,
)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
LONGEST_SHOWN = 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ada:secret@host/a", "https://host/a"),
        ("https://ada:p'ss@host", "https://host"),
        ('https://ada:p"ss@host', "https://host"),
        ("https://ada:pa/ss@host/a", "https://host/a"),
        ("https://ada:p@ss@host/a", "https://host/a"),
        ("https://ada:p?s#s@host/a", "https://host/a"),
        ("https://ada:p://s@host/a", "https://host/a"),
        ("https://ghp_xxx@github.com/o/r.git", "https://github.com/o/r.git"),
        ("postgresql+psycopg2://ada:pw@db:5432/mlflow", "postgresql+psycopg2://db:5432/mlflow"),
        ("(https://ada:pw@host/a, https://bob:pw@other/b)", "(https://host/a, https://other/b)"),
        ("https://a.example/,https://bob:pw@b.example", "https://a.example/,https://b.example"),
        ("https://bucket.example/x?X-Amz-Signature=abc&x=1", "https://bucket.example/x?***"),
        ("'https://host/x?sig=a': 403", "'https://host/x?***': 403"),
        ('url = "https://host/x.whl?sig=a", size = 1', 'url = "https://host/x.whl?***", size = 1'),
        ("https://login.example/?next=https://b.example&token=abc", "https://login.example/?***"),
        (
            "https://conda.example/t/tk-123/channel/noarch",
            "https://conda.example/t/***/channel/noarch",
        ),
        ("https://host/a#access_token=abc", "https://host/a#access_token=***"),
        ("https://host/a;token=abc/b;v=1", "https://host/a;token=***/b;v=***"),
        (
            "jdbc:sqlserver://host:1433;user=ada;password=p;w",
            "jdbc:sqlserver://host:1433;user=***;password=***;w",
        ),
        ("https://host/a;b/c", "https://host/a;b/c"),
    ],
)
def test_credentials_of_a_url_are_not_shown(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "no URL: a?b=c user:pw@host",
        "https://host:5000/a/b",
        "git+https://github.com/o/r.git@v1.0#subdirectory=x&egg=y",
        "https://files.example/x.whl#sha256=abc",
        "https://registry.example/@scope/name",
        "https://github.com/o/r#sub",
        "file:///home/a@b/x",
        "sqlite:////home/a@b/mlflow.db",
        "http://localhost:5000/a@b",
        "http://[::1]:5000/a@b",
        "see https://host/a, mail bob@example.com",
        "runs:/0123/model",
    ],
)
def test_a_url_without_credentials_stays_as_it_is(text):
    assert redact(text) == without_logins(text) == text


def test_a_program_gets_the_url_without_its_login_and_nothing_else_changed():
    text = 'url = "https://ada:pw@host:80/t/tk/x.whl?sig=a#sha256=b" git+ssh://git@host/r.git@v1'
    assert without_logins(text) == (
        'url = "https://host:80/t/tk/x.whl?sig=a#sha256=b" git+ssh://host/r.git@v1'
    )


def shows(text, secret, template):
    """A part of `secret` in `text`, longer than the template shows by itself."""
    length = LONGEST_SHOWN + 1
    parts = {secret[start : start + length] for start in range(len(secret) - LONGEST_SHOWN)}
    return next((part for part in parts if part in text and part not in template), None)


def looks_like_a_host(login):
    """The one login that is taken for an address: a client would take it for one too."""
    end = min((login.find(mark) for mark in "/?#" if mark in login), default=len(login))
    return bool(HOST.fullmatch(login[:end]))


@given(user=SECRET, password=SECRET)
@example("ada", "p'ss\"/@?#word")
@example("ada", "x://secret/y@z")
@example("ada", "/://secret")
def test_no_login_is_shown_whatever_it_holds(user, password):
    for login in (f"{user}:{password}", user, f":{password}"):
        assume(not looks_like_a_host(login))
        template = "cannot read {}://{}host.example:8080/some/path#part now"
        for scheme in ("https", "git+ssh", "postgresql"):
            shown = redact(template.format(scheme, f"{login}@"))
            assert shown == template.format(scheme, "")


@given(user=ANY_TEXT, password=ANY_TEXT)
def test_no_quoted_login_is_shown(user, password):
    quoted = [urllib.parse.quote(word, safe="") for word in (user, password)]
    assume(not looks_like_a_host(":".join(quoted)))
    assert redact(f"x https://{quoted[0]}:{quoted[1]}@host/p: refused") == (
        "x https://host/p: refused"
    )


@given(token=SECRET)
@example("a/b@c?d#e'f\")))))")
@example(")))))))")
def test_no_token_of_a_query_or_of_conda_is_shown(token):
    template = "cannot read https://host.example/path?sig={} now"
    shown = redact(template.format(token))
    assert shows(shown, token, template) is None, shown
    template = "cannot read https://host.example/t/{}/channel/noarch now"
    shown = redact(template.format(urllib.parse.quote(token, safe="")))
    assert shows(shown, token, template) is None, shown


@given(ANY_TEXT)
def test_what_was_redacted_once_stays_as_it_is(text):
    assert redact(redact(text)) == redact(text)


@pytest.mark.timeout(30)  # a quadratic one needs minutes
@pytest.mark.parametrize(
    "part",
    [
        "://",
        "a",
        "https://a",
        "https://a@",
        "https://a.b/",
        "/t/",
        "@",
        "?",
        "#a=",
        "x://a.b?",
        "://[",
        " ",
    ],
)
def test_the_time_grows_only_as_the_length(part):
    assert len(redact("https://x" + part * 300_000)) <= len("https://x" + part * 300_000) * 2
