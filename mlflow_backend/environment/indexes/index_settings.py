"""The user's settings of uv and pip: the indexes, their order, and the certificates.

Only the user's and the machine's own settings count. Files of a project, or of a folder above it,
must not choose the sources of packages.
"""

import configparser
import os
import re
import sys
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mlflow_backend.environment import toml_text, urls
from mlflow_backend.environment.checks import quote
from mlflow_backend.environment.indexes import conda_channels
from mlflow_backend.environment.toml_text import Table
from mlflow_backend.errors import EnvironmentSpecError, without_logins

Value = TypeVar("Value")
SYSTEM_BUNDLES = ("/etc/ssl/", "/etc/pki/", "/usr/share/ca-certificates/", "/private/etc/ssl/")
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
INDEX_KEYS = ("index-url", "extra-index-url", "index", "find-links")

PASSED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "NETRC",
    "REQUESTS_CA_BUNDLE", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "CC", "CXX", "CFLAGS", "CXXFLAGS",
    "CPPFLAGS", "LDFLAGS", "PKG_CONFIG_PATH", "CARGO_HOME", "RUSTUP_HOME", "GIT_SSH",
    "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM",
    "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT",
    "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "HTTP_PROXY", "HTTPS_PROXY",
    "ALL_PROXY", "NO_PROXY",
})  # fmt: skip
"""The variables that uv gets, by their upper-case name, in addition to those that start with
PASSED_PREFIXES: no login except for an index.
"""
PASSED_PREFIXES = ("LC_", "UV_", "PIP_", "XDG_", "SSL_CERT_")
NOT_PASSED = (
    "UV_CONFIG_FILE", "UV_NO_CONFIG", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON",
    "UV_SYSTEM_PYTHON", "UV_WORKING_DIR",
    "UV_WORKING_DIRECTORY", "UV_ENV_FILE", "UV_PUBLISH_USERNAME", "UV_PUBLISH_PASSWORD",
    "UV_PUBLISH_TOKEN", "UV_GITHUB_TOKEN",
)  # fmt: skip
BUILDING = ("no-binary", "no-binary-package", "no-build", "no-build-package", "only-binary")
"""Settings of uv.toml that choose between wheels and sources, on its first level and below [pip].
"""
BUILDING_VARIABLES = (
    "UV_NO_BINARY",
    "UV_NO_BINARY_PACKAGE",
    "UV_NO_BUILD",
    "UV_NO_BUILD_PACKAGE",
    "UV_ONLY_BINARY",
)


def for_uv(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of uv: pip's settings count where uv has none."""
    env = {name: value for name, value in environ.items() if _is_passed(name)}
    if "://" not in env.get("UV_FIND_LINKS", ""):
        env.pop("UV_FIND_LINKS", None)  # a folder of this machine is not available to the run
    pip = _pip_settings(environ)
    if not any(environ.get(name) for name in INDEX_VARIABLES) and not _chooses_index(
        uv_config(environ)
    ):
        if "index-url" in pip:
            env["UV_DEFAULT_INDEX"] = pip["index-url"]
        if "extra-index-url" in pip:
            env["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
    for name in INDEX_VARIABLES:
        if name in env:
            env[name] = urls.expand(env[name], environ)
    if "trusted-host" in pip:
        env.setdefault("UV_INSECURE_HOST", " ".join(pip["trusted-host"].split()))
    if bundle := ca_bundle(environ):
        env.setdefault("SSL_CERT_FILE", bundle)
    return env


def without_building(
    env: Mapping[str, str], config: Table
) -> tuple[dict[str, str], dict[str, Any]]:
    """Variables and configuration of uv without the settings that override `--no-build` (in uv
    0.13 a `no-binary` for a named package does).
    """
    safe = _without(config, BUILDING)
    if isinstance(safe.get("pip"), dict):
        safe["pip"] = _without(safe["pip"], BUILDING)
    return _without(env, BUILDING_VARIABLES), safe


def uv_config(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The user's uv.toml merged over the machine's, or the file in UV_CONFIG_FILE alone, as in uv:
    https://docs.astral.sh/uv/concepts/configuration-files/

    Raises EnvironmentSpecError for a file that is not TOML.
    """
    if environ.get("UV_NO_CONFIG", "").lower() not in ("", "0", "false"):
        return {}
    named = environ.get("UV_CONFIG_FILE")
    paths = (
        [Path(named)]
        if named
        else [_config_folder(environ) / "uv" / "uv.toml", *_system_files(environ)[:1]]
    )
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _merge(merged, _read_toml(path))
    return merged


def index_urls(environ: Mapping[str, str] = os.environ) -> list[str]:
    """All index URLs in the settings, those of named indexes with their login, which uv reads from
    UV_INDEX_NAME_USERNAME and UV_INDEX_NAME_PASSWORD.
    """
    env = for_uv(environ)
    named = [word for name in INDEX_VARIABLES for word in env.get(name, "").split()]
    named += _urls_in_config(uv_config(environ))
    return [_with_login_of_index(urls.expand(word, environ), environ) for word in named]


def default_index(environ: Mapping[str, str] = os.environ) -> str | None:
    """The address of the default Python index, without a login; None if uv's own default
    applies.
    """
    env, config = for_uv(environ), uv_config(environ)
    candidates = [
        env.get("UV_DEFAULT_INDEX"),
        env.get("UV_INDEX_URL"),
        *(item["url"] for item in _indexes(config) if item.get("default")),
        *(section.get("index-url") for section in _sections(config)),
    ]
    index = next(filter(None, candidates), None)
    if not isinstance(index, str):
        return None
    return urls.without_login(urls.expand(_name_and_url(index)[1], environ))


def ca_bundle(environ: Mapping[str, str] = os.environ) -> str | None:
    """The file of certificate authorities in the user's settings for package indexes."""
    return next(_ca_bundles(environ), None)


def own_ca_bundle(environ: Mapping[str, str] = os.environ) -> str | None:
    """The first such file that is not the machine's own bundle: it must travel, as the image does
    not have it.
    """
    return next(
        (
            path
            for path in _ca_bundles(environ)
            if not os.path.realpath(path).startswith(SYSTEM_BUNDLES)
        ),
        None,
    )


def fingerprint(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The settings that choose the index of a package, without logins: a change of them requires a
    new lock.
    """
    env = for_uv(environ)
    values = [
        f"{name}={without_logins(value)}"
        for name, value in sorted(env.items())
        if name.startswith("UV_") and not _is_secret(name)
    ]
    return [
        *values,
        without_logins(toml_text.dump(uv_config(environ))),
        without_logins(str(conda_channels.load(environ))),
    ]


def _is_passed(name: str) -> bool:
    upper = name.upper()
    return (upper in PASSED or upper.startswith(PASSED_PREFIXES)) and upper not in NOT_PASSED


def _is_secret(name: str) -> bool:
    return name.endswith(("_PASSWORD", "_USERNAME", "_TOKEN"))


def _ca_bundles(environ: Mapping[str, str]) -> Iterator[str]:
    named = (
        environ.get("SSL_CERT_FILE"),
        _pip_settings(environ).get("cert"),
        conda_channels.load(environ).ca_bundle,
    )
    return (
        path
        for path in (*named, environ.get("REQUESTS_CA_BUNDLE"))
        if path and os.path.isfile(path)
    )


def _config_folder(environ: Mapping[str, str]) -> Path:
    if sys.platform == "win32" and environ.get("APPDATA"):
        return Path(environ["APPDATA"])
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _system_files(environ: Mapping[str, str]) -> list[Path]:
    """The machine's uv.toml files, the first of which uv reads."""
    folders = [
        Path(item) for item in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":") if item
    ]
    return [
        path
        for path in (*(folder / "uv" / "uv.toml" for folder in folders), Path("/etc/uv/uv.toml"))
        if path.is_file()
    ]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return toml_text.load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise EnvironmentSpecError(
            f"{path}: cannot be read: {error.strerror}", code="UnreadableFile"
        ) from None
    except ValueError as error:
        raise EnvironmentSpecError(
            f"{path}: {str(error).splitlines()[0]}", code="InvalidFile", hint="correct the TOML"
        ) from None


def _without(values: Mapping[str, Value], names: Container[str]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if name not in names}


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two configurations as uv merges them: the first value wins, and lists are concatenated."""
    merged = {**second, **first}
    for name in first.keys() & second.keys():
        if isinstance(first[name], dict) and isinstance(second[name], dict):
            merged[name] = _merge(first[name], second[name])
        elif isinstance(first[name], list) and isinstance(second[name], list):
            merged[name] = [*first[name], *second[name]]
    return merged


def _sections(config: Table) -> Iterator[Table]:
    """The parts of a uv.toml that may set indexes: its first level, and [pip]."""
    yield config
    if isinstance(pip := config.get("pip"), dict):
        yield pip


def _chooses_index(config: Table) -> bool:
    return any(name in section for section in _sections(config) for name in INDEX_KEYS)


def _indexes(config: Table) -> list[Table]:
    """The items of [[index]] that have a URL; uv itself reports a value of another type."""
    listed = config.get("index")
    items = listed if isinstance(listed, list) else []
    return [item for item in items if isinstance(item, dict) and isinstance(item.get("url"), str)]


def _urls_in_config(config: Table) -> list[str]:
    """The indexes of a uv.toml, as `URL` or `NAME=URL`."""
    addresses = [
        f"{item['name']}={item['url']}" if isinstance(item.get("name"), str) else item["url"]
        for item in _indexes(config)
    ]
    for section in _sections(config):
        for name in ("index-url", "extra-index-url", "find-links"):
            value = section.get(name)
            values = value if isinstance(value, list) else [value]
            addresses += [item for item in values if isinstance(item, str)]
    return addresses


def _name_and_url(word: str) -> tuple[str, str]:
    """The parts of `NAME=URL`; the name of a plain URL is empty."""
    name, separator, url = word.partition("=")
    return (name, url) if separator and "://" not in name else ("", word)


def _with_login_of_index(word: str, environ: Mapping[str, str]) -> str:
    name, url = _name_and_url(word)
    if not name:
        return word
    variable = "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    user, password = environ.get(f"{variable}_USERNAME"), environ.get(f"{variable}_PASSWORD")
    if (user is None and password is None) or urls.login(url):
        return url
    return urls.with_login(url, user or "", password or "")


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """pip's options by their long name, from its configuration files and its environment variables,
    which take precedence: https://pip.pypa.io/en/stable/topics/configuration/

    Raises EnvironmentSpecError for a file that pip would reject.
    """
    config = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    paths = [Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", config / "pip/pip.conf"]
    if environ.get("PIP_CONFIG_FILE"):
        paths.append(Path(environ["PIP_CONFIG_FILE"]))
    options: dict[str, str] = {}
    for path in paths:
        options |= _read_pip_file(path)
    for name in ("index-url", "extra-index-url", "trusted-host", "cert"):
        if value := environ.get("PIP_" + name.upper().replace("-", "_")):
            options[name] = value
    return {name.replace("_", "-"): urls.expand(value, environ) for name, value in options.items()}


def _read_pip_file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(path)
    except (configparser.Error, UnicodeDecodeError) as error:
        raise EnvironmentSpecError(
            f"{path}: is not a configuration file of pip: {quote(str(error).splitlines()[0])}",
            code="InvalidFile",
        ) from None
    sections = [name for name in ("global", "install") if parser.has_section(name)]
    return {name: value for section in sections for name, value in parser.items(section)}
