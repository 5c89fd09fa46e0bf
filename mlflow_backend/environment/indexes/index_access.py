"""Logins for package indexes and channels, and the hosts to which each may be sent.

A project chooses the addresses of its packages, and its code can read the files of its pod. A
login is therefore sent only to hosts in the user's own settings, or in `credential_hosts` of the
target, over HTTPS (over HTTP to this machine itself, and to a port that the target lists). cargo
and npm bind a credential to the address of its registry in the same way.
"""

import json
import netrc
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_backend.environment import urls
from mlflow_backend.environment.indexes import conda_channels, index_settings
from mlflow_backend.environment.permissions import Permissions
from mlflow_backend.environment.urls import Origin
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_runner.contract.submission import NETRC, RATTLER_AUTH

ADDRESS = re.compile(r"(?<![a-z+])[a-z+]+://\S+", re.IGNORECASE)
DENIED = re.compile(r"\b(401 Unauthorized|403 Forbidden)\b")


@dataclass(frozen=True)
class Login:
    """For one host: user and password, or a conda token."""

    user: str | None = None
    password: str = field(default="", repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Logins:
    """By host, the logins that travel with the run, and a sentence for each one that does not."""

    sent: Mapping[str, Login] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()

    def files(self) -> dict[str, bytes]:
        """The logins as files, by the variable that tells the runner each path: one for uv, one for
        rattler. Empty without logins.
        """
        files = {}
        lines = [
            _netrc_line(host, item.user, item.password)
            for host, item in self.sent.items()
            if item.user is not None
        ]
        if lines:
            files[NETRC] = "".join(lines).encode()
        if self.sent:
            files[RATTLER_AUTH] = json.dumps(
                {host: _for_rattler(item) for host, item in self.sent.items()}
            ).encode()
        return files


def find(
    addresses: Iterable[str],
    own: Iterable[str],
    permissions: Permissions,
    environ: Mapping[str, str] = os.environ,
) -> Logins:
    """The logins for the hosts of `addresses`.

    `own` are the project's addresses, which may hold logins of its own.
    """
    by_host: dict[str, set[Origin]] = {}
    for origin in _origins(addresses):
        by_host.setdefault(origin.host, set()).add(origin)
    own, settings = list(own), user_urls(environ)
    sent: dict[str, Login] = {}
    withheld: list[str] = []
    for host, origins in sorted(by_host.items()):
        login, trusted = _of_urls(own, origins), origins
        if login is None:
            login, trusted = (
                _of_urls(settings, origins) or _of_netrc(host, environ),
                _origins(settings),
            )
        if login is None:
            continue
        if problem := _problem(origins, trusted, permissions):
            withheld.append(problem)
        else:
            sent[host] = login
    return Logins(sent, tuple(withheld))


def user_urls(environ: Mapping[str, str] = os.environ) -> list[str]:
    """All addresses of indexes and channels in the user's own settings, logins included."""
    conda = conda_channels.load(environ)
    return [
        *index_settings.index_urls(environ),
        conda.alias,
        *conda.urls(conda.channels),
        *conda.defaults,
        *conda.custom.values(),
    ]


def expand(
    text: str, permissions: Permissions, where: str, environ: Mapping[str, str] = os.environ
) -> str:
    """A project's line with the values of variables for `${NAME}`, as in pip, if a login may be
    sent to its address.

    Raises EnvironmentSpecError for a variable that is not set, and for another address.
    """
    if not urls.VARIABLE.search(text):
        return text
    filled = urls.expand(text, environ)
    if missing := urls.VARIABLE.search(filled):
        raise EnvironmentSpecError(
            f"{where}: the variable {missing[1]} is not set", code="MissingSetting"
        )
    origin = _origin_in(filled)
    if permissions.lists(origin or Origin("https", "", 0)) or (
        origin in _origins(user_urls(environ)) and origin.is_private
    ):
        return filled
    written = _origin_in(text)
    raise EnvironmentSpecError(
        f"{where}: variables are not filled in for {written or 'a text that is not an address'}, "
        "which your own index settings do not name (with HTTPS)",
        code="MissingSetting",
        hint=f"add '{written or 'HOST'}' to 'credential_hosts' of the target to allow it",
    )


def is_denied(text: str) -> bool:
    """Whether an index or channel denied access, by the output of uv or rattler."""
    return bool(DENIED.search(text))


def without_default(environ: Mapping[str, str] = os.environ) -> bytes | None:
    """The user's .netrc without its `default` entry, whose login would be sent to every host; None
    without such an entry.
    """
    hosts = _netrc(environ)
    if "default" not in hosts:
        return None
    return "".join(
        _netrc_line(host, user, password)
        for host, (user, _, password) in hosts.items()
        if host != "default"
    ).encode()


def _origins(addresses: Iterable[str]) -> set[Origin]:
    return {origin for url in addresses if (origin := urls.origin(url))}


def _origin_in(line: str) -> Origin | None:
    """The origin of the first address in a line."""
    match = ADDRESS.search(line)
    return urls.origin(match[0]) if match else None


def _problem(origins: set[Origin], trusted: set[Origin], permissions: Permissions) -> str | None:
    """Why a login is not sent to its host: one sentence with the setting that allows it."""
    for origin in sorted(origins):
        if permissions.lists(origin):
            continue
        if not origin.is_private:
            return (
                f"the login for {origin} is not sent, as HTTP is not encrypted: add "
                f"'{origin.host_and_port}' to 'credential_hosts' of the target to send it anyway"
            )
        if origin not in trusted:
            return (
                f"the login for {origin} is not sent, as the project names this host and your own "
                f"index settings do not: add '{origin}' to 'credential_hosts' of the target to "
                "send it"
            )
    return None


def _of_urls(addresses: Iterable[str], origins: set[Origin]) -> Login | None:
    for url in addresses:
        if urls.origin(url) in origins:
            if login := urls.login(url):
                return Login(*login)
            if token := conda_channels.token(url):
                return Login(token=token)
    return None


def _of_netrc(host: str, environ: Mapping[str, str]) -> Login | None:
    entry = _netrc(environ).get(host) if host != "default" else None
    return Login(entry[0] or "", entry[2] or "") if entry else None


def _netrc(environ: Mapping[str, str]) -> dict[str, tuple[str, str, str]]:
    """User, account and password by host; empty without a file that can be read."""
    try:
        return netrc.netrc(environ.get("NETRC") or str(Path.home() / ".netrc")).hosts
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return {}


def _netrc_line(host: str, user: str | None, password: str | None) -> str:
    return f"machine {host} login {_word(user)} password {_word(password)}\n"


def _word(text: str | None) -> str:
    """A word of a .netrc, quoted only if uv's parser requires it (uv 0.13): that of rattler does
    not read quotes.
    """
    text = text or ""
    if re.fullmatch(r"[!$-\[\]-~]+", text):
        return text
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"'


def _for_rattler(login: Login) -> dict[str, object]:
    """The login in rattler's file of credentials: https://rattler.prefix.dev"""
    return (
        {"CondaToken": login.token}
        if login.token
        else {"BasicHTTP": {"username": login.user or "", "password": login.password}}
    )
