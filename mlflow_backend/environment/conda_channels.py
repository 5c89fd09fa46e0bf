"""Where conda packages come from: the user's own conda settings, read as conda reads them."""

import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_backend.environment.spec import load_yaml

ALIAS = "https://conda.anaconda.org"
DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
FALLBACK = ("conda-forge",)
"""Where a file names no channel, as MLflow's own conda environments."""

TOKEN = re.compile(r"/t/([^/]+)")


@dataclass(frozen=True)
class CondaSettings:
    """The settings of `.condarc` files that decide which package is meant.

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
        found: list[str] = []
        for name in names or self.channels:
            if name != "nodefaults":
                found += [self.url(item) for item in (self.defaults if name == "defaults" else (name,))]
        return tuple(dict.fromkeys(found))

    def url(self, name: str) -> str:
        if "://" in name:
            return name.rstrip("/")
        base = self.custom.get(name.partition("/")[0], self.alias)
        return f"{base.rstrip('/')}/{name}"


def load(environ: Mapping[str, str] = os.environ) -> CondaSettings:
    """The settings of all `.condarc` files; the user's go before the machine's. An unreadable file counts for nothing."""
    home, config = Path.home(), Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = [Path("/etc/conda/.condarc"), Path("/etc/conda/condarc"), config / "conda/.condarc", home / ".conda/.condarc"]
    places += [home / ".condarc", *(Path(environ[name]) / ".condarc" for name in ("CONDA_PREFIX",) if environ.get(name))]
    places += [Path(environ["CONDARC"])] if environ.get("CONDARC") else []
    merged: dict[str, Any] = {}
    for place in places:
        if place.is_file():
            merged |= load_yaml(place)
    priority = str(merged.get("channel_priority", "strict")).lower()
    verify = str(merged.get("ssl_verify", ""))
    return CondaSettings(
        alias=str(merged.get("channel_alias", ALIAS)),
        channels=tuple(merged.get("channels") or FALLBACK),
        defaults=tuple(merged.get("default_channels") or DEFAULTS),
        custom=merged.get("custom_channels") or {},
        strict_priority=priority not in ("disabled", "false"),
        ca_bundle=verify if verify.lower() not in ("", "true", "false", "truststore") else None,
    )


def without_credentials(url: str) -> str:
    """The URL without `user:password@` and without `/t/TOKEN`."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=TOKEN.sub("", parts.path)))


def token(url: str) -> str | None:
    """The token in a URL such as `https://HOST/t/TOKEN/channel`."""
    match = TOKEN.match(urllib.parse.urlsplit(url).path)
    return match and match[1]
