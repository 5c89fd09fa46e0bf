"""Text files that a project names: only its own, and of limited size.

A project may be fetched from anywhere. A name in it (`-r ../../.netrc`, `-r /proc/self/environ`,
a link) must not bring a file of this machine into a lock or an error message.
"""

import codecs
import os
import stat
from pathlib import Path

from mlflow_backend.errors import EnvironmentSpecError
from mlflow_backend.explanations import Code

MOST_BYTES = 1_000_000
MOST_BYTES_OF_A_LOCK = 20_000_000
BOMS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE,
    "utf-32-be"), (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
"""UTF-32 precedes UTF-16, because its mark starts with that of UTF-16."""


def read(path: Path, root: Path, most_bytes: int = MOST_BYTES, named: str | None = None) -> str:
    """The text of the regular file `path` in the folder `root`; `named` is the project's name for
    it in an error.

    The encoding is UTF-8 unless the file starts with the byte order mark of another one, as in pip.
    Raises EnvironmentSpecError.
    """
    where = named or str(path)
    try:
        data = _read_bytes(path, root, most_bytes + 1, where)
    except OSError as error:
        code: Code = "NotFound" if isinstance(error, FileNotFoundError) else "UnreadableFile"
        raise EnvironmentSpecError(
            f"{where}: cannot be read: {error.strerror}", code=code
        ) from None
    except ValueError:  # a name with a null character
        raise EnvironmentSpecError(
            f"{where!r}: is not the name of a file", code="InvalidValue"
        ) from None
    if len(data) > most_bytes:
        raise EnvironmentSpecError(
            f"{where}: is larger than {most_bytes / 1e6:.0f} MB", code="TooLarge"
        )
    return _decode(data, where)


def _read_bytes(path: Path, root: Path, most_bytes: int, where: str) -> bytes:
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise EnvironmentSpecError(
            f"{where}: is outside the project's folder",
            code="UnusableFile",
            hint="copy the file into the project",
        )
    if not stat.S_ISREG(os.stat(real).st_mode):
        raise EnvironmentSpecError(f"{where}: is not a regular file", code="UnreadableFile")
    with open(real, "rb") as file:
        return file.read(most_bytes)


def _decode(data: bytes, where: str) -> str:
    mark, encoding = next(
        ((mark, encoding) for mark, encoding in BOMS if data.startswith(mark)), (b"", "utf-8")
    )
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise EnvironmentSpecError(
            f"{where}: is not text in {encoding} (byte {error.start + len(mark)})",
            code="InvalidFile",
            hint="save the file as UTF-8",
        ) from None
