"""The login to the tracking server: where it comes from, which hosts receive it, and how texts hide
it.
"""

import base64
import os
import re
from typing import Iterator, Mapping, Optional, Sequence, Tuple
from urllib.parse import unquote, urlsplit, urlunsplit

from mlflow_runner.contract.answers import Denied
from mlflow_runner.contract.tracking_variables import NAMES, PASSWORD, TOKEN, USERNAME

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
"""The file with the token of the pod's service account."""
PORTS = {"http": 80, "https": 443}
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
HEADER_VALUE = re.compile(r"[\x21-\x7e]+")
MIN_HIDDEN_CHARS = 4
"""A shorter password occurs in too many words to be replaced."""


def authorization() -> Optional[str]:
    """The value of the header Authorization; None without a login.

    Raises Denied, which never shows a value, and OSError if the mounted token is unreadable.
    """
    values = {name: os.environ.get(name, "").rstrip("\r\n") for name in NAMES}
    for name, value in values.items():
        if CONTROL.search(value):
            raise Denied(f"{name} contains a control character", "set it to one line of text")
    if values[USERNAME] and values[PASSWORD]:
        return "Basic " + _base64(values)
    token = values[TOKEN]
    if not token and os.environ.get("MLFLOW_TRACKING_AUTH") == "kubernetes":
        with open(SERVICE_ACCOUNT) as file:  # each time: the kubelet renews it
            token = file.read().strip()
    if token and not HEADER_VALUE.fullmatch(token):
        raise Denied(
            f"{TOKEN} contains a character that is not allowed in an HTTP header",
            "set it to letters, digits and punctuation, without spaces",
        )
    return f"Bearer {token}" if token else None


def may_be_sent(url: str, server: str, hosts: Sequence[str] = ()) -> bool:
    """Whether the login for the tracking server `server` may go to `url`: to its own scheme, host
    and port, or to one of `hosts`.

    A server at http://HOST may move to https://HOST. The login never goes over http if the server
    itself uses https.
    """
    there, home = _origin(url), _origin(server)
    if there == home:
        return True
    if there[0] == "http" and home[0] == "https":
        return False
    moved = home[1] == there[1] and (home[0], home[2], there[0], there[2]) == (
        "http",
        80,
        "https",
        443,
    )
    return moved or any(_origin(f"{there[0]}://{host}") == there for host in hosts)


def split_url(url: str) -> Tuple[str, Optional[str]]:
    """The URL without user and password, and these as the value of the header Authorization (None
    without them).
    """
    parsed = urlsplit(url)
    user, mark, host = parsed.netloc.rpartition("@")
    if not mark:
        return url, None
    name, _, password = user.partition(":")
    return urlunsplit(parsed._replace(netloc=host)), "Basic " + _base64(
        {USERNAME: unquote(name), PASSWORD: unquote(password)}
    )


def hide(text: str) -> str:
    """`text` without the login, which a server's answer or an exception may repeat."""
    for value in _secrets():
        for shown in (value, repr(value)[1:-1], ascii(value)[1:-1]):
            text = text.replace(shown, "***")
    return text


def _secrets() -> Iterator[str]:
    values = {name: os.environ.get(name, "").rstrip("\r\n") for name in NAMES}
    if values[USERNAME] and values[PASSWORD]:
        yield _base64(values)
    for name in (PASSWORD, TOKEN):
        if len(values[name]) >= MIN_HIDDEN_CHARS:
            yield values[name]


def _base64(values: Mapping[str, str]) -> str:
    return base64.b64encode(
        f"{values[USERNAME]}:{values[PASSWORD]}".encode("utf-8", "surrogateescape")
    ).decode()


def _origin(url: str) -> Tuple[str, str, Optional[int]]:
    """Scheme, host and port; an invalid URL has an origin of its own, which equals no other."""
    parsed = urlsplit(url)
    try:
        return (
            parsed.scheme,
            (parsed.hostname or "").lower(),
            parsed.port or PORTS.get(parsed.scheme),
        )
    except ValueError:  # a port that is not a number
        return "", url, None
