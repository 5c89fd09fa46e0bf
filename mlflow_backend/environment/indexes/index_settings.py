"""What the user has set for uv and pip: which indexes are asked, in what order, with which
certificates.

Only the user's and the machine's own settings count. Files of a project, or of a folder above it,
must not choose where packages come from.
"""

import configparser
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_backend.environment import toml_text, urls
from mlflow_backend.environment.checks import shown
from mlflow_backend.environment.indexes import conda_channels
from mlflow_backend.errors import EnvironmentSpecError, without_logins

SYSTEM_BUNDLES = ("/etc/ssl/", "/etc/pki/", "/usr/share/ca-certificates/", "/private/etc/ssl/")
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
INDEX_KEYS = ("index-url", "extra-index-url", "index", "find-links")

PASSED = frozenset(
    "PATH HOME USER LOGNAME LANG LANGUAGE TZ TMPDIR TEMP TMP NETRC REQUESTS_CA_BUNDLE "
    "SSH_AUTH_SOCK DBUS_SESSION_BUS_ADDRESS LD_LIBRARY_PATH DYLD_LIBRARY_PATH "
    "DYLD_FALLBACK_LIBRARY_PATH CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS PKG_CONFIG_PATH CARGO_HOME "
    "RUSTUP_HOME GIT_SSH GIT_SSH_COMMAND GIT_CONFIG_GLOBAL GIT_CONFIG_SYSTEM GIT_CONFIG_NOSYSTEM "
    "GIT_SSL_CAINFO GIT_SSL_CAPATH SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT USERPROFILE "
    "APPDATA LOCALAPPDATA PROGRAMDATA "
    "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY".split()
)
"""The variables that uv gets, by their upper-case name, together with those that start with
PASSED_PREFIXES: no login to anything but an index.
"""
PASSED_PREFIXES = ("LC_", "UV_", "PIP_", "XDG_", "SSL_CERT_")
NOT_PASSED = (
    "UV_CONFIG_FILE", "UV_NO_CONFIG", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON",
    "UV_SYSTEM_PYTHON", "UV_WORKING_DIR",
    "UV_WORKING_DIRECTORY", "UV_ENV_FILE", "UV_PUBLISH_USERNAME", "UV_PUBLISH_PASSWORD",
    "UV_PUBLISH_TOKEN", "UV_GITHUB_TOKEN",
)  # fmt: skip
BUILDING = ("no-binary", "no-binary-package", "no-build", "no-build-package", "only-binary")
"""Settings of uv.toml that choose between wheels and sources, at its first level and below [pip].
"""
BUILDING_VARIABLES = (
    "UV_NO_BINARY",
    "UV_NO_BINARY_PACKAGE",
    "UV_NO_BUILD",
    "UV_NO_BUILD_PACKAGE",
    "UV_ONLY_BINARY",
)


def for_uv(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of uv: what is set for pip counts where nothing is set for uv itself."""
    env = {name: value for name, value in environ.items() if _is_passed(name)}
    if "://" not in env.get("UV_FIND_LINKS", ""):
        env.pop("UV_FIND_LINKS", None)  # a folder of this machine is not where the run is
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
            env[name] = urls.expanded(env[name], environ)
    if "trusted-host" in pip:
        env.setdefault("UV_INSECURE_HOST", " ".join(pip["trusted-host"].split()))
    if bundle := ca_bundle(environ):
        env.setdefault("SSL_CERT_FILE", bundle)
    return env


def without_building(
    env: Mapping[str, str], config: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Variables and configuration of uv without what would override `--no-build` (uv 0.13: a
    `no-binary` for a named package does).
    """
    left = {name: value for name, value in config.items() if name not in BUILDING}
    if isinstance(left.get("pip"), dict):
        left["pip"] = {name: value for name, value in left["pip"].items() if name not in BUILDING}
    return {name: value for name, value in env.items() if name not in BUILDING_VARIABLES}, left


def uv_config(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The content of the user's uv.toml over that of the machine's, or of the file in
    UV_CONFIG_FILE alone, as uv reads them.

    https://docs.astral.sh/uv/concepts/configuration-files/ . Raises EnvironmentSpecError for a file
    that is not TOML.
    """
    if environ.get("UV_NO_CONFIG", "").lower() not in ("", "0", "false"):
        return {}
    named = environ.get("UV_CONFIG_FILE")
    places = (
        [Path(named)]
        if named
        else [_config_folder(environ) / "uv" / "uv.toml", *_system_files(environ)[:1]]
    )
    merged: dict[str, Any] = {}
    for place in places:
        merged = _over(merged, _read_toml(place))
    return merged


def index_urls(environ: Mapping[str, str] = os.environ) -> list[str]:
    """All index URLs that are set, with the login of named indexes put in (UV_INDEX_NAME_USERNAME,
    uv's own rule).
    """
    env = for_uv(environ)
    named = [word for name in INDEX_VARIABLES for word in env.get(name, "").split()]
    named += _urls_in_config(uv_config(environ))
    return [_with_login_of_index(urls.expanded(word, environ), environ) for word in named]


def default_index(environ: Mapping[str, str] = os.environ) -> str | None:
    """The address of the Python index that is asked first, without a login; None: uv's own
    default.
    """
    env, config = for_uv(environ), uv_config(environ)
    listed = [item.get("url") for item in _indexes(config) if item.get("default")]
    sections = [
        section.get("index-url")
        for section in (config, config.get("pip"))
        if isinstance(section, dict)
    ]
    found = next(
        (
            item
            for item in (env.get("UV_DEFAULT_INDEX"), env.get("UV_INDEX_URL"), *listed, *sections)
            if item
        ),
        None,
    )
    return (
        urls.without_login(urls.expanded(_name_and_url(found)[1], environ))
        if isinstance(found, str)
        else None
    )


def ca_bundle(environ: Mapping[str, str] = os.environ) -> str | None:
    """The file of certificate authorities that the user set for package indexes."""
    return next(_ca_bundles(environ), None)


def own_ca_bundle(environ: Mapping[str, str] = os.environ) -> str | None:
    """The same where it is not the machine's own bundle, which an image has too: it must travel."""
    return next(
        (
            path
            for path in _ca_bundles(environ)
            if not os.path.realpath(path).startswith(SYSTEM_BUNDLES)
        ),
        None,
    )


def fingerprint(environ: Mapping[str, str] = os.environ) -> list[str]:
    """What decides which index a name is looked up in, without logins: a lock is only reused while
    it stays the same.
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
    """The machine's uv.toml, where there is one."""
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
        raise EnvironmentSpecError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise EnvironmentSpecError(
            f"{path}: {str(error).splitlines()[0]}: correct the TOML"
        ) from None


def _over(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two configurations as uv combines them: of two values the first one counts, of two lists
    both.
    """
    merged = {**second, **first}
    for name in first.keys() & second.keys():
        if isinstance(first[name], dict) and isinstance(second[name], dict):
            merged[name] = _over(first[name], second[name])
        elif isinstance(first[name], list) and isinstance(second[name], list):
            merged[name] = [*first[name], *second[name]]
    return merged


def _chooses_index(config: Mapping[str, Any]) -> bool:
    pip = config.get("pip")
    return any(name in config or (isinstance(pip, dict) and name in pip) for name in INDEX_KEYS)


def _indexes(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = config.get("index")
    return (
        [item for item in listed if isinstance(item, dict) and isinstance(item.get("url"), str)]
        if isinstance(listed, list)
        else []
    )


def _urls_in_config(config: Mapping[str, Any]) -> list[str]:
    """The indexes of uv's own file, as `URL` or `NAME=URL`.

    Values of another type are left to uv, which says what is wrong.
    """
    found = [
        f"{item['name']}={item['url']}" if isinstance(item.get("name"), str) else item["url"]
        for item in _indexes(config)
    ]
    for section in (config, config.get("pip")):
        if isinstance(section, dict):
            for name in ("index-url", "extra-index-url", "find-links"):
                value = section.get(name)
                found += [
                    item
                    for item in (value if isinstance(value, list) else [value])
                    if isinstance(item, str)
                ]
    return found


def _name_and_url(word: str) -> tuple[str, str]:
    """The parts of `NAME=URL`; of a plain URL the name is empty."""
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
    """pip's options by their long name: from its configuration files, then from its environment
    variables.

    https://pip.pypa.io/en/stable/topics/configuration/ . Raises EnvironmentSpecError for a file
    that pip would refuse.
    """
    config = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = [Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", config / "pip/pip.conf"]
    if environ.get("PIP_CONFIG_FILE"):
        places.append(Path(environ["PIP_CONFIG_FILE"]))
    found: dict[str, str] = {}
    for place in places:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(place)
        except (configparser.Error, UnicodeDecodeError) as error:
            raise EnvironmentSpecError(
                f"{place}: is not a configuration of pip: {shown(str(error).splitlines()[0])}"
            ) from None
        for section in ("global", "install"):
            found |= dict(parser.items(section)) if parser.has_section(section) else {}
    for name in ("index-url", "extra-index-url", "trusted-host", "cert"):
        if value := environ.get("PIP_" + name.upper().replace("-", "_")):
            found[name] = value
    return {name.replace("_", "-"): urls.expanded(value, environ) for name, value in found.items()}
