"""URLs of package indexes and channels: where one points to, and the login in it."""

import re
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from mlflow_backend import addresses

PORTS = {"https": 443, "http": 80}
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
"""A variable that pip expands:
https://pip.pypa.io/en/stable/reference/requirements-file-format/#using-environment-variables
"""
CHARACTERS = re.compile(r"[!#-;=?-\[\]_a-z~]+")
"""The characters that RFC 3986 allows in a URL: two clients may read two hosts in a URL with
another one, such as a backslash.
"""


def is_plain(text: str) -> bool:
    """Whether `text`, apart from variables, has only characters of a URL."""
    return bool(CHARACTERS.fullmatch(VARIABLE.sub("x", text)))


class Origin(NamedTuple):
    """What a login belongs to: a scheme (https or http), a host in lower case, and a port."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def host_and_port(self) -> str:
        """`HOST:PORT`, the standard port included."""
        host = str(self)
        return f"{host}:{self.port}" if self.port == PORTS[self.scheme] else host

    @property
    def url(self) -> str:
        """The origin as a URL without a path."""
        return f"{self.scheme}://{self}"

    @property
    def is_private(self) -> bool:
        """Whether requests are hidden from the network: HTTPS, or this machine itself."""
        return self.scheme == "https" or addresses.is_loopback(self.host)


def origin(url: str) -> Origin | None:
    """The origin of an HTTP URL, `git+https://` included; None for another scheme and for a text
    that is not a URL.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        scheme, host, port = parts.scheme.lower().removeprefix("git+"), parts.hostname, parts.port
    except ValueError:
        return None
    return Origin(scheme, host, port or PORTS[scheme]) if scheme in PORTS and host else None


def host_of(entry: str) -> tuple[str | None, int | None]:
    """Host and port of `HOST` or `HOST:PORT`; no host in another text."""
    try:
        parts = urllib.parse.urlsplit(f"//{entry}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None, None
    return host, port


def login(url: str) -> tuple[str, str] | None:
    """User and password in a URL, unquoted."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return None
    if parts.username is None:
        return None
    return urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")


def with_login(url: str, user: str, password: str) -> str:
    """The URL with user and password in it, quoted."""
    parts = urllib.parse.urlsplit(url)
    quoted = f"{urllib.parse.quote(user, safe='')}:{urllib.parse.quote(password, safe='')}"
    return urllib.parse.urlunsplit(parts._replace(netloc=f"{quoted}@{parts.netloc}"))


def without_login(url: str) -> str:
    """The URL without user and password, or the same text.

    The user of an SSH address stays, as it is part of the address.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # not a URL: remove all that precedes an @
        return re.sub(r"//[^/]*@", "//", url)
    before, _, host = parts.netloc.rpartition("@")
    user = f"{before.partition(':')[0]}@" if before and parts.scheme.endswith("ssh") else ""
    return url.replace(parts.netloc, user + host, 1) if before else url


def expand(text: str, environ: Mapping[str, str]) -> str:
    """`text` with the values of variables for `${NAME}`; as in pip, one that is unset or empty is
    left as it is.
    """
    return VARIABLE.sub(lambda match: environ.get(match[1]) or match[0], text)
