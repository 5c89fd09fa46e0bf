"""The solver process: a request as JSON on standard input, packages or a problem as JSON on
standard output.

It is started by its path in Python's isolated mode (`-I`), so that no file of the current folder
and no PYTHON* variable can replace a module. `request["path"]` holds the folders of rattler.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any


def main() -> None:
    """Answer the request."""
    request = json.load(sys.stdin)
    sys.path += request["path"]  # after the standard library, which none of its modules may hide
    answer = asyncio.run(_solve(request))
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()


async def _solve(request: dict[str, Any]) -> dict[str, Any]:
    import rattler
    from rattler.exceptions import GatewayError, SolverError

    specs = []
    for item in request["specs"]:
        try:
            specs.append(rattler.MatchSpec(item, strict=False))
        except Exception as error:  # one of several classes, none of them public
            return _problem("match spec", f"'{item}': {error}")
    platforms = [request["platform"], "noarch"]
    priority = (
        rattler.ChannelPriority.Strict
        if request["strict_priority"]
        else rattler.ChannelPriority.Disabled
    )
    client = rattler.Client.authenticated_client()
    answer: dict[str, Any] = {}
    for sharded in (True, False):  # some servers serve a broken sharded form
        gateway = _gateway(client, sharded, request["refresh"])
        try:
            records = await rattler.solve(
                request["channels"], specs, gateway=gateway, platforms=platforms,
                virtual_packages=_virtual_packages(request["virtual_packages"]),
                channel_priority=priority, add_pip_as_python_dependency=False,
            )  # fmt: skip
        except SolverError as error:
            candidates = await _candidates(gateway, request, platforms)
            return _problem("unsolvable", str(error), **candidates)
        except GatewayError as error:
            answer = _problem("channel", str(error))
        else:
            return {"records": [_fields(record) for record in records]}
    return answer


def _gateway(client: Any, sharded: bool, refresh: bool) -> Any:
    import rattler
    from rattler.repo_data.gateway import SourceConfig

    config = SourceConfig(
        sharded_enabled=sharded, cache_action="no-cache" if refresh else "cache-or-fetch"
    )
    return rattler.Gateway(default_config=config, client=client)


def _virtual_packages(packages: dict[str, str]) -> list[Any]:
    import rattler
    from rattler.package.build_string import BuildString

    parts = [(name, *value.partition("=")) for name, value in packages.items()]
    return [
        rattler.GenericVirtualPackage(
            rattler.PackageName(name), rattler.Version(version), BuildString(build or "0")
        )
        for name, version, _, build in parts
    ]


def _problem(kind: str, text: str, **candidates: Any) -> dict[str, Any]:
    return {"problem": {"kind": kind, "text": text, **candidates}}


def _fields(record: Any) -> dict[str, Any]:
    return {
        "name": record.name.source,
        "version": str(record.version),
        "build": str(record.build),
        "subdir": record.subdir,
        "url": record.url,
        "sha256": record.sha256.hex() if record.sha256 else "",
        "md5": record.md5.hex() if record.md5 else "",
        "size_bytes": record.size or 0,
        "depends": list(record.depends),
    }


async def _candidates(
    gateway: Any, request: dict[str, Any], platforms: Sequence[str]
) -> dict[str, Any]:
    """All names of the channels, and the versions of the requested packages: for a hint."""
    try:
        names = [name.normalized for name in await gateway.names(request["channels"], platforms)]
        available = sorted(set(request["packages"]) & set(names))
        versions: dict[str, dict[str, Any]] = {}
        if available:
            channels = await gateway.query(
                request["channels"], platforms, available, recursive=False
            )
            for record in (record for records in channels for record in records):
                by_text = versions.setdefault(record.name.normalized, {})
                by_text[str(record.version)] = record.version
    except Exception:  # the problem itself matters more than its hint
        return {}
    return {
        "names": names,
        "versions": {
            name: sorted(items, key=items.__getitem__) for name, items in versions.items()
        },
    }


if __name__ == "__main__":
    main()
