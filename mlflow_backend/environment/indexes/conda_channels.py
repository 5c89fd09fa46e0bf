"""The sources of conda packages: the user's own conda settings, read as conda reads them."""

import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_backend import yaml_files
from mlflow_backend.environment.checks import quote
from mlflow_backend.environment.parsers.spec import entries, load_yaml, scalar
from mlflow_backend.environment.urls import expand, without_login
from mlflow_backend.errors import EnvironmentSpecError

ALIAS = "https://conda.anaconda.org"
DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
FALLBACK = ("conda-forge",)
"""The channels of a file that names none, as in MLflow's own conda environments."""
TOKEN = re.compile(r"/t/([^/]+)")


@dataclass(frozen=True)
class CondaSettings:
    """The settings of `.condarc` files that choose between packages of one name.

    https://docs.conda.io/projects/conda/en/stable/user-guide/configuration/settings.html
    """

    alias: str = ALIAS
    channels: tuple[str, ...] = FALLBACK
    defaults: tuple[str, ...] = DEFAULTS
    custom: Mapping[str, str] = field(default_factory=dict)
    strict_priority: bool = True
    ca_bundle: str | None = None

    def urls(self, names: Sequence[str]) -> tuple[str, ...]:
        """The channels' URLs, credentials included, each once and in the order of priority."""
        urls = [
            self.url(item)
            for name in names or self.channels
            if name != "nodefaults"
            for item in (self.defaults if name == "defaults" else (name,))
        ]
        return tuple(dict.fromkeys(urls))

    def url(self, name: str) -> str:
        """The URL of the channel with this name or URL."""
        if "://" in name:
            return name.rstrip("/")
        base = self.custom.get(name.partition("/")[0], self.alias)
        return f"{base.rstrip('/')}/{name}"


def load(environ: Mapping[str, str] = os.environ) -> CondaSettings:
    """The settings of all `.condarc` files; the user's take precedence over the machine's.
    `${NAME}` in them is replaced, as in conda.

    Raises EnvironmentSpecError for a file that conda would reject.
    """
    merged: dict[str, Any] = {}
    for path in _files(environ):
        merged |= _read(path, environ)
    priority = merged.get("channel_priority", "strict").lower()
    verify = merged.get("ssl_verify", "")
    return CondaSettings(
        alias=merged.get("channel_alias", ALIAS),
        channels=tuple(merged.get("channels") or FALLBACK),
        defaults=tuple(merged.get("default_channels") or DEFAULTS),
        custom=merged.get("custom_channels") or {},
        strict_priority=priority not in ("disabled", "false"),
        ca_bundle=verify if verify.lower() not in ("", "true", "false", "truststore") else None,
    )


def _files(environ: Mapping[str, str]) -> list[Path]:
    home, config = Path.home(), Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    paths = [
        Path("/etc/conda/.condarc"),
        Path("/etc/conda/condarc"),
        config / "conda/.condarc",
        home / ".conda/.condarc",
        home / ".condarc",
    ]
    if prefix := environ.get("CONDA_PREFIX"):
        paths.append(Path(prefix) / ".condarc")
    if path := environ.get("CONDARC"):
        paths.append(Path(path))
    return [path for path in paths if path.is_file()]


def _read(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings of one file that CondaSettings holds, each with its type."""
    content = load_yaml(yaml_files.read(path, EnvironmentSpecError), path)
    settings: dict[str, Any] = {}
    for key in ("channel_alias", "channel_priority", "ssl_verify"):
        if (value := scalar(content, key, path)) is not None:
            settings[key] = expand(value, environ)
    for key in ("channels", "default_channels"):
        if listed := entries(content, key, path):
            settings[key] = [_text(item, key, path, environ) for item in listed]
    if custom := content.get("custom_channels"):
        if not isinstance(custom, dict):
            raise EnvironmentSpecError(
                f"{path}: 'custom_channels' must map names to URLs, not be {quote(custom)}",
                code="InvalidFile",
            )
        settings["custom_channels"] = {
            name: _text(value, "custom_channels", path, environ) for name, value in custom.items()
        }
    return settings


def _text(value: Any, key: str, path: Path, environ: Mapping[str, str]) -> str:
    if not isinstance(value, str) or not value:
        raise EnvironmentSpecError(
            f"{path}: '{key}': {quote(value)} is not a channel", code="InvalidValue"
        )
    return expand(value, environ)


def without_credentials(url: str) -> str:
    """The URL without `user:password@` and without `/t/TOKEN`."""
    url = without_login(url)
    return url.replace(f"/t/{secret}", "", 1) if (secret := token(url)) else url


def token(url: str) -> str | None:
    """The token in a URL such as `https://HOST/t/TOKEN/channel`; None without one, or for a text
    that is not a URL.
    """
    try:
        match = TOKEN.match(urllib.parse.urlsplit(url).path)
    except ValueError:
        return None
    return match and match[1]
