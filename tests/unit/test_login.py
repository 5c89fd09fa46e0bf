"""The login to the tracking server: whom it goes to, and that nothing shows it."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_runner.contract import tracking_variables
from mlflow_runner.contract.answers import Denied
from mlflow_runner.tracking import login


@pytest.mark.parametrize(("url", "server", "hosts", "sent"), [
    ("http://a/x", "http://a", (), True),
    ("http://A:80/x", "http://a/mlflow", (), True),
    ("https://a/x", "http://a", (), True),  # the redirect of an ingress
    ("http://a/x", "https://a", (), False),
    ("https://a:8443/x", "http://a:8080", (), False),
    ("https://b/x", "https://a", (), False),
    ("https://a.evil/x", "https://a", (), False),
    ("https://a@evil/x", "https://a", (), False),
    ("https://a:5000/x", "https://a", (), False),
    ("https://b/x", "https://a", ("b",), True),
    ("https://b:8443/x", "https://a", ("b",), False),
    ("https://b:8443/x", "https://a", ("b:8443",), True),
    ("http://b/x", "https://a", ("b",), False),  # never without TLS where the server has it
    ("http://b:9000/x", "http://a", ("b:9000",), True),
    ("https://[::1]:5000/x", "https://[::1]:5000", (), True),
    ("https://a:x/y", "https://a:x", (), False),
])  # fmt: skip
def test_the_login_goes_to_the_tracking_server_and_to_listed_hosts_only(url, server, hosts, sent):
    assert login.may_be_sent(url, server, hosts) is sent


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_newline_that_ends_a_secret_is_no_part_of_it(monkeypatch, ending):
    monkeypatch.setenv(login.TOKEN, f"abc{ending}")
    assert login.authorization() == "Bearer abc"
    monkeypatch.setenv(login.USERNAME, f"ada{ending}")
    monkeypatch.setenv(login.PASSWORD, f"pw:é{ending}")
    assert login.authorization() == "Basic " + base64.b64encode("ada:pw:é".encode()).decode()


def test_variables_are_stripped_for_the_command_too():
    environ = {login.TOKEN: "abc\n", "OTHER": "x\n"}
    tracking_variables.strip(environ)
    assert environ == {login.TOKEN: "abc", "OTHER": "x\n"}


@given(
    st.sampled_from(login.NAMES),
    st.text(min_size=4, max_size=8),
    st.sampled_from("\n\r\t\x00\x1f\x7f"),
    st.text(min_size=4, max_size=8),
)
def test_a_control_character_in_a_login_is_refused_and_the_value_not_shown(
    name, before, control, after
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.environ", {name: before + control + after})
        with pytest.raises(Denied) as refused:
            login.authorization()
        assert str(refused.value) == f"{name} contains a control character"
        assert refused.value.hint == "set it to one line of text"


@pytest.mark.parametrize("token", ["a b", "é", "\udcff"])
def test_a_token_that_no_header_can_hold_is_refused(monkeypatch, token):
    monkeypatch.setenv(login.TOKEN, token)
    with pytest.raises(
        Denied,
        match=r"^MLFLOW_TRACKING_TOKEN contains a character that is not allowed in an HTTP header$",
    ):
        login.authorization()


def test_a_password_of_any_bytes_can_be_sent(monkeypatch):
    monkeypatch.setenv(login.USERNAME, "ada")
    monkeypatch.setenv(login.PASSWORD, "\udcff")
    assert login.authorization() == "Basic " + base64.b64encode(b"ada:\xff").decode()


def test_what_a_server_repeats_of_a_login_is_hidden(monkeypatch):
    monkeypatch.setenv(login.USERNAME, "ada")
    monkeypatch.setenv(login.PASSWORD, "correct-horse")
    sent = login.authorization()
    assert login.hide(f"got {sent}, that is ada and correct-horse") == (
        "got Basic ***, that is ada and ***"
    )


def test_hosts_are_listed_with_commas_or_spaces():
    listed = {tracking_variables.CREDENTIAL_HOSTS: "a, b:5000 c\n"}
    assert (
        tracking_variables.credential_hosts(listed) == ("a", "b:5000", "c")
        and tracking_variables.credential_hosts({}) == ()
    )


@pytest.mark.parametrize("value", ["s3cr3t\nx-token", "s3cr3t'\ttoken", "s3cr3t\u00fctoken"])
@pytest.mark.parametrize("show", [str, repr, ascii])
def test_a_login_is_hidden_however_python_writes_it(value, show, monkeypatch):
    monkeypatch.setenv(tracking_variables.TOKEN, value)
    assert "s3cr3t" not in login.hide(f"header value: {show(value)}")
