"""A conda channel in a folder: archives in conda's format, indexed by rattler.

The public channels stay the product's default; tests must not need them. CPython is
this machine's own, repackaged so that it finds itself in any prefix.
"""

import asyncio
import hashlib
import io
import json
import os
import sys
import sysconfig
import tarfile
from collections.abc import Mapping
from pathlib import Path

PYTHON = "{}.{}.{}".format(*sys.version_info[:3])
SHORT = "{}.{}".format(*sys.version_info[:2])
LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "tkinter",
    "site-packages",
    "dist-packages",
    "__pycache__",
}


class Channel:
    """`url` is what a conda.yaml names. Packages that are added count after `index`."""

    def __init__(self, folder: Path, subdir: str = "linux-64"):
        self.folder = folder
        self.url = folder.as_uri()
        self._subdir = subdir
        for name in (subdir, "noarch"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def add(
        self,
        name: str,
        version: str,
        files: Mapping[str, bytes],
        depends=(),
        subdir: str | None = None,
        **index,
    ) -> Path:
        """Write one package; `files` are its contents by path in the prefix, executable below bin/."""
        subdir = subdir or self._subdir
        info = {"name": name, "version": version, "build": "h0_0", "build_number": 0, "depends": list(depends), "subdir": subdir,
                "timestamp": 1700000000000, **index}  # fmt: skip
        paths = [
            {
                "_path": path,
                "path_type": "hardlink",
                "sha256": hashlib.sha256(data).hexdigest(),
                "size_in_bytes": len(data),
            }
            for path, data in files.items()
        ]
        content = {
            "info/index.json": json.dumps(info).encode(),
            "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
            "info/files": "\n".join(files).encode(),
            **files,
        }
        archive = self.folder / subdir / f"{name}-{version}-h0_0.tar.bz2"
        with tarfile.open(archive, "w:bz2", compresslevel=1) as tar:
            for path, data in content.items():
                member = tarfile.TarInfo(path)
                member.size, member.mtime = len(data), 1700000000
                member.mode = 0o755 if path.startswith("bin/") else 0o644
                tar.addfile(member, io.BytesIO(data))
        return archive

    def add_module(self, name: str, version: str, depends=("python",), **files: bytes) -> Path:
        """A noarch Python package with one module that knows its version."""
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
        content = {f"site-packages/{name}/__init__.py": f"__version__ = {version!r}\n".encode(),
                   f"site-packages/{name}-{version}.dist-info/METADATA": metadata,
                   f"site-packages/{name}-{version}.dist-info/INSTALLER": b"conda", **files}  # fmt: skip
        content[f"site-packages/{name}-{version}.dist-info/RECORD"] = "".join(
            f"{path[14:]},,\n" for path in content
        ).encode()
        return self.add(name, version, content, depends, "noarch", noarch="python")

    def add_python(self) -> None:
        """CPython of this machine. It links no library but the C library."""
        self.add("python", PYTHON, _cpython(), [f"python_abi {SHORT}.*", "__glibc >=2.17"])
        self.add("python_abi", SHORT, {}, subdir="noarch", noarch="generic")

    def index(self) -> None:
        from rattler.index import index_fs

        asyncio.run(index_fs(self.folder, force=True))


def _cpython() -> dict[str, bytes]:
    base = Path(sys.base_prefix)
    executable = Path(os.path.realpath(sys.executable)).read_bytes()
    files = {}
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        library = sysconfig.get_config_var("INSTSONAME")
        folder = sysconfig.get_config_var("LIBDIR")
        files[f"lib/{library}"] = (Path(folder) / library).read_bytes()
        executable = _relative_runpath(executable, folder)
    for name in ("python", "python3", f"python{SHORT}"):
        files[f"bin/{name}"] = executable
    library = base / "lib" / f"python{SHORT}"
    for path in sorted(library.rglob("*")):
        parts = path.relative_to(library).parts
        if (
            path.is_file()
            and not LEFT_OUT & set(parts)
            and not parts[0].startswith("config-")
            and path.suffix not in (".a", ".exe")
        ):
            files[f"lib/python{SHORT}/{'/'.join(parts)}"] = _undebianised(path)
    return files


def _relative_runpath(executable: bytes, folder: str) -> bytes:
    """Where the loader looks for libpython: next to the executable instead of where this one was
    installed.
    """
    old, new = folder.encode() + b"\0", b"$ORIGIN/../lib\0"
    return (
        executable.replace(old, new.ljust(len(old), b"\0")) if len(new) <= len(old) else executable
    )


def _undebianised(path: Path) -> bytes:
    """Debian's CPython looks for packages in dist-packages when it is not in a virtual
    environment.
    """
    data = path.read_bytes()
    if path.name in ("site.py", "sysconfig.py"):
        return data.replace(b"dist-packages", b"site-packages").replace(
            b"'posix_local'", b"'posix_prefix'"
        )
    return data
