"""What it takes to reach package indexes: settings and credentials that the user already has for uv, pip and conda.

Credentials are kept by host, so that a pod gets those of the hosts in its lock and no others.
"""

import configparser
import json
import netrc
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_backend.environment import conda_channels
from mlflow_backend.environment.lock import load_toml
from mlflow_backend.errors import redact, without_logins
from mlflow_runner.submission import NETRC, RATTLER_AUTH

SYSTEM_BUNDLES = ("/etc/ssl/", "/etc/pki/", "/usr/share/ca-certificates/", "/private/etc/ssl/")
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")


@dataclass(frozen=True)
class Login:
    """For one host: user and password, or a conda token."""

    user: str | None = None
    password: str = ""
    token: str | None = None


def for_uv(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of uv: what is set for pip counts where nothing is set for uv itself."""
    env = dict(environ)
    for name in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_SYSTEM_PYTHON", "UV_PYTHON"):
        env.pop(name, None)
    if "://" not in env.get("UV_FIND_LINKS", ""):
        env.pop("UV_FIND_LINKS", None)  # a folder of this machine is not where the run is
    pip = _pip_settings(environ)
    if not any(environ.get(name) for name in INDEX_VARIABLES) and not _uv_toml(environ):
        if "index-url" in pip:
            env["UV_DEFAULT_INDEX"] = pip["index-url"]
        if "extra-index-url" in pip:
            env["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
    if "trusted-host" in pip:
        env.setdefault("UV_INSECURE_HOST", " ".join(pip["trusted-host"].split()))
    if bundle := ca_bundle(environ):
        env.setdefault("SSL_CERT_FILE", bundle)
    return env


def ca_bundle(environ: Mapping[str, str] = os.environ) -> str | None:
    """The file of certificate authorities that the user set for package indexes."""
    return next(_ca_bundles(environ), None)


def own_ca_bundle(environ: Mapping[str, str] = os.environ) -> str | None:
    """The same where it is not the machine's own bundle, which an image has too: it must travel."""
    return next((path for path in _ca_bundles(environ) if not os.path.realpath(path).startswith(SYSTEM_BUNDLES)), None)


def _ca_bundles(environ: Mapping[str, str]) -> Iterator[str]:
    named = (environ.get("SSL_CERT_FILE"), _pip_settings(environ).get("cert"), conda_channels.load(environ).ca_bundle)
    return (path for path in (*named, environ.get("REQUESTS_CA_BUNDLE")) if path and os.path.isfile(path))


def fingerprint(environ: Mapping[str, str] = os.environ) -> list[str]:
    """What decides which index a name is looked up in, without credentials: a lock is only reused while it stays the same."""
    env = for_uv(environ)
    values = [f"{name}={redact(value)}" for name, value in sorted(env.items()) if name.startswith("UV_") and not _is_secret(name)]
    return [*values, redact(_uv_toml(environ)), redact(str(conda_channels.load(environ)))]


def logins(urls: Iterable[str], extra: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> dict[str, Login]:
    """The login of each host of `urls` that has one.

    `extra` are URLs that may hold credentials themselves, such as an `--index-url` of the project.
    """
    return {host: login for host in sorted({_host(url) or "" for url in urls}) if host and (login := _login(host, extra, environ))}


def secrets(urls: Iterable[str], extra: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> dict[str, bytes]:
    """The logins as files, by the variable that names each to the runner; empty where no host needs one."""
    found = logins(urls, extra, environ)
    files = {}
    lines = [f"machine {host} login {item.user} password {item.password}\n" for host, item in found.items() if item.user is not None]
    if lines:
        files[NETRC] = "".join(lines).encode()
    tokens = {host: {"CondaToken": item.token} for host, item in found.items() if item.token}
    if tokens:
        files[RATTLER_AUTH] = json.dumps(tokens).encode()
    return files


def _login(host: str, extra: Iterable[str], environ: Mapping[str, str]) -> Login | None:
    settings = conda_channels.load(environ)
    urls = [*extra, *_index_urls(environ), settings.alias, *settings.channels, *settings.defaults, *settings.custom.values()]
    for url in urls:
        if _host(url) == host:
            parts = urllib.parse.urlsplit(url)
            if parts.username is not None:
                return Login(urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or ""))
            if token := conda_channels.token(url):
                return Login(token=token)
    path = environ.get("NETRC") or str(Path.home() / ".netrc")
    try:
        found = netrc.netrc(path).authenticators(host) if os.path.isfile(path) else None
    except (netrc.NetrcParseError, OSError):
        return None
    return Login(found[0], found[2] or "") if found else None


def _index_urls(environ: Mapping[str, str]) -> list[str]:
    """All index URLs that are set, with the credentials of named indexes put in (UV_INDEX_NAME_USERNAME, uv's own rule)."""
    env = for_uv(environ)
    named = [word for name in INDEX_VARIABLES for word in env.get(name, "").split()]
    named += _urls_in_uv_toml(environ)
    found = []
    for word in named:
        name, separator, url = word.partition("=")
        if not separator or "://" in name:
            found.append(word)
            continue
        variable = "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
        user, password = environ.get(f"{variable}_USERNAME"), environ.get(f"{variable}_PASSWORD", "")
        parts = urllib.parse.urlsplit(url)
        if user is not None and parts.username is None:
            login = f"{urllib.parse.quote(user, safe='')}:{urllib.parse.quote(password, safe='')}"
            url = urllib.parse.urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))
        found.append(url)
    return found


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """pip's options by their long name: from its configuration files, then from its environment variables."""
    config = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = [Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", config / "pip/pip.conf"]
    if environ.get("PIP_CONFIG_FILE"):
        places.append(Path(environ["PIP_CONFIG_FILE"]))
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(places)
    except configparser.Error:
        return {}
    found = {name: value for section in ("global", "install") if parser.has_section(section) for name, value in parser.items(section)}
    for name in ("index-url", "extra-index-url", "trusted-host", "cert"):
        if value := environ.get("PIP_" + name.upper().replace("-", "_")):
            found[name] = value
    return {name.replace("_", "-"): value for name, value in found.items()}


def _uv_toml(environ: Mapping[str, str]) -> str:
    config = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for path in (Path(environ.get("UV_CONFIG_FILE") or config / "uv/uv.toml"), Path("/etc/uv/uv.toml")):
        if path.is_file():
            return path.read_text(errors="replace")
    return ""


def default_index(environ: Mapping[str, str] = os.environ) -> str | None:
    """The address of the Python index that is asked first, without credentials; None: uv's own default."""
    env = for_uv(environ)
    named = env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL") or _uv_toml_content(environ).get("index-url")
    return named and without_logins(named)


def _uv_toml_content(environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        content = load_toml(_uv_toml(environ))
    except ValueError:
        return {}  # uv will say what is wrong with it
    content |= content.get("pip", {})
    for item in content.get("index", []):
        if item.get("default"):
            content.setdefault("index-url", item.get("url"))
    return content


def _urls_in_uv_toml(environ: Mapping[str, str]) -> list[str]:
    """The indexes of uv's own file, as `URL` or `NAME=URL`."""
    content = _uv_toml_content(environ)
    extra = content.get("extra-index-url", [])
    indexes = [f"{item['name']}={item['url']}" if "name" in item else item["url"] for item in content.get("index", []) if "url" in item]
    return [*indexes, *filter(None, [content.get("index-url")]), *extra]


def _host(url: str) -> str | None:
    try:
        return urllib.parse.urlsplit(url).hostname
    except ValueError:
        return None


def _is_secret(name: str) -> bool:
    return name.endswith(("_PASSWORD", "_USERNAME", "_TOKEN"))
