"""The process that solves: a request as JSON on standard input, packages or a problem as JSON on
standard output.

It is started by its path in Python's isolated mode (`-I`), so that no file of the current folder
and no PYTHON* variable can take the place of a module. `request["path"]` holds the folders of
rattler.
"""

import asyncio
import json
import sys


def main() -> None:
    request = json.load(sys.stdin)
    sys.path += request["path"]  # behind the standard library, which nothing in there may shadow
    answer = asyncio.run(_solve(request))
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()


async def _solve(request):
    import rattler
    from rattler.exceptions import GatewayError, SolverError
    from rattler.package.build_string import BuildString
    from rattler.repo_data.gateway import SourceConfig

    specs = []
    for item in request["specs"]:
        try:
            specs.append(rattler.MatchSpec(item, strict=False))
        except Exception as error:  # rattler has several for this, none of them public
            return {"problem": {"kind": "match spec", "text": f"'{item}': {error}"}}
    virtual = []
    for name, value in request["virtual_packages"].items():
        version, _, build = value.partition("=")
        virtual.append(
            rattler.GenericVirtualPackage(rattler.PackageName(name), rattler.Version(version),
            BuildString(build or "0"))
        )  # fmt: skip
    platforms = [request["platform"], "noarch"]
    priority = (
        rattler.ChannelPriority.Strict
        if request["strict_priority"]
        else rattler.ChannelPriority.Disabled
    )
    client = rattler.Client.authenticated_client()
    for sharded in (True, False):  # some servers answer the sharded form wrongly
        gateway = rattler.Gateway(
            default_config=SourceConfig(
                sharded_enabled=sharded,
                cache_action="no-cache" if request["refresh"] else "cache-or-fetch",
            ),
            client=client,
        )
        try:
            records = await rattler.solve(
                request["channels"], specs, gateway=gateway, platforms=platforms,
                virtual_packages=virtual,
                channel_priority=priority, add_pip_as_python_dependency=False,
            )  # fmt: skip
            return {"records": [_fields(record) for record in records]}
        except SolverError as error:
            return {
                "problem": {
                    "kind": "unsolvable",
                    "text": str(error),
                    **await _what_there_is(gateway, request, platforms, specs),
                }
            }
        except GatewayError as error:
            problem = {"kind": "channel", "text": str(error)}
    return {"problem": problem}


def _fields(record):
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


async def _what_there_is(gateway, request, platforms, specs):
    """All names of the channels, and the versions of those that were asked for: what a hint is made
    of.
    """
    try:
        names = [name.normalized for name in await gateway.names(request["channels"], platforms)]
        asked = [
            item.rpartition("::")[2]
            .replace("=", " ")
            .replace("<", " ")
            .replace(">", " ")
            .split()[0]
            for item in request["specs"]
        ]
        known = sorted(set(asked) & set(names))
        versions = {}
        if known:
            found = await gateway.query(request["channels"], platforms, known, recursive=False)
            for records in found:
                for record in records:
                    versions.setdefault(record.name.normalized, {})[str(record.version)] = (
                        record.version
                    )
        ordered = {name: sorted(items, key=items.get) for name, items in versions.items()}
        return {"names": names, "versions": ordered}
    except Exception:  # a hint less must not hide the problem itself
        return {"names": [], "versions": {}}


if __name__ == "__main__":
    main()
