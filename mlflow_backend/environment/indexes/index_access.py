"""Logins for package indexes and channels, and where each may go.

A project chooses the addresses that its packages come from, and its code can read the files that a
pod gets. So a login goes only to hosts that the user's own settings name, or that the target lists
in `credential_hosts`, over HTTPS (over HTTP to this machine itself, or where the target lists the
port). cargo and npm bind a credential to the address of its registry in the same way.
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

ADDRESS = re.compile(r"(?<![a-z+])[a-z+]+://\S+", re.I)


@dataclass(frozen=True)
class Login:
    """For one host: user and password, or a conda token."""

    user: str | None = None
    password: str = field(default="", repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Logins:
    """By host, the logins that go along; and a sentence for each one that stays."""

    sent: Mapping[str, Login]
    withheld: tuple[str, ...] = ()

    def files(self) -> dict[str, bytes]:
        """The logins as files, by the variable that names each to the runner: one for uv, one for
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
    for asked in filter(None, map(urls.origin, addresses)):
        by_host.setdefault(asked.host, set()).add(asked)
    own, settings = list(own), user_urls(environ)
    users = {found for url in settings if (found := urls.origin(url))}
    sent: dict[str, Login] = {}
    withheld: list[str] = []
    for host, asked in sorted(by_host.items()):
        login, known = _of_urls(own, asked), asked
        if login is None:
            login, known = _of_urls(settings, asked) or _of_netrc(host, environ), users
        if login is None:
            continue
        if problem := _problem(login, asked, known, permissions):
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


def expanded(
    text: str, permissions: Permissions, where: str, environ: Mapping[str, str] = os.environ
) -> str:
    """A project's line with each `${NAME}` replaced by the variable, as pip does, where its address
    is one that a login may go to.

    Raises EnvironmentSpecError for a variable that is not set, and for another address.
    """
    found = urls.expanded(text, environ)
    if found == text and not urls.VARIABLE.search(text):
        return text
    if missing := urls.VARIABLE.search(found):
        raise EnvironmentSpecError(f"{where}: the variable {missing[1]} is not set")
    shown, asked = (
        urls.origin(match[0]) if (match := ADDRESS.search(line)) else None for line in (text, found)
    )
    users = {known for url in user_urls(environ) if (known := urls.origin(url))}
    if not permissions.lists(asked or Origin("https", "", 0)) and not (
        asked in users and asked.is_private
    ):
        raise EnvironmentSpecError(
            f"{where}: variables are not filled in for {shown or 'what is not an address'}, which "
            f"your own index settings do not name (with HTTPS): add '{shown or 'HOST'}' to "
            "'credential_hosts' of the target to allow it"
        )
    return found


def without_default(environ: Mapping[str, str] = os.environ) -> bytes | None:
    """The user's .netrc without its `default` entry, whose login would go to every host; None where
    it has none.
    """
    hosts = _netrc(environ)
    if "default" not in hosts:
        return None
    return "".join(
        _netrc_line(host, user, password)
        for host, (user, _, password) in hosts.items()
        if host != "default"
    ).encode()


def _problem(
    login: Login, asked: set[Origin], known: set[Origin], permissions: Permissions
) -> str | None:
    """Why the login does not go to its host: one sentence with what allows it."""
    for target in sorted(asked):
        if permissions.lists(target):
            continue
        port = str(target) if str(target) != target.host else f"{target}:{target.port}"
        if not target.is_private:
            return (
                f"the login for {target} stays here: HTTP is not encrypted; to send it all the "
                f"same, add '{port}' to 'credential_hosts' of the target"
            )
        if target not in known:
            return (
                f"the login for {target} stays here: the project names this host, your own index "
                f"settings do not; to send it, add '{target}' to 'credential_hosts' of the target"
            )
    return None


def _of_urls(addresses: Iterable[str], asked: set[Origin]) -> Login | None:
    for url in addresses:
        if urls.origin(url) in asked:
            if found := urls.login(url):
                return Login(*found)
            if token := conda_channels.token(url):
                return Login(token=token)
    return None


def _of_netrc(host: str, environ: Mapping[str, str]) -> Login | None:
    found = _netrc(environ).get(host) if host != "default" else None
    return Login(found[0] or "", found[2] or "") if found else None


def _netrc(environ: Mapping[str, str]) -> dict[str, tuple[str, str, str]]:
    """User, account and password by host; empty where there is no file, or one that cannot be
    read.
    """
    try:
        return netrc.netrc(environ.get("NETRC") or str(Path.home() / ".netrc")).hosts
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return {}


def _netrc_line(host: str, user: str | None, password: str | None) -> str:
    return f"machine {host} login {_word(user)} password {_word(password)}\n"


def _word(text: str | None) -> str:
    """A word of a .netrc, quoted where uv's parser needs it (seen with uv 0.13); rattler's does not
    read quotes.
    """
    text = text or ""
    return (
        text
        if re.fullmatch(r"[!$-\[\]-~]+", text)
        else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
    )


def _for_rattler(login: Login) -> dict[str, object]:
    """https://rattler.prefix.dev : a file of credentials, by host."""
    return (
        {"CondaToken": login.token}
        if login.token
        else {"BasicHTTP": {"username": login.user or "", "password": login.password}}
    )
