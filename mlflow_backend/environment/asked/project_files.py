"""Files that a project names, read as text: only its own, and none that never ends.

A project may be fetched from anywhere, so a name in it (`-r ../../.netrc`, `-r /proc/self/environ`,
a link) must not make a file of this machine part of a lock or of an error.
"""

import codecs
import os
import stat
from pathlib import Path

from mlflow_backend.errors import EnvironmentSpecError

MOST_BYTES = 1_000_000
MOST_BYTES_OF_A_LOCK = 20_000_000
BOMS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE,
    "utf-32-be"), (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
"""UTF-32 before UTF-16, whose mark it starts with."""


def read(path: Path, root: Path, most_bytes: int = MOST_BYTES, named: str | None = None) -> str:
    """The text of the file `path`, which must lie in the folder `root` and be regular; `named` is
    how the project names it.

    It is UTF-8 unless it starts with the byte order mark of another encoding, as in pip. Raises
    EnvironmentSpecError.
    """
    where = named or str(path)
    try:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(root)):
            raise EnvironmentSpecError(
                f"{where}: is outside the project's folder: copy the file into the project"
            )
        if not stat.S_ISREG(os.stat(real).st_mode):
            raise EnvironmentSpecError(f"{where}: is not a file")
        with open(real, "rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise EnvironmentSpecError(f"{where}: cannot be read: {error.strerror}") from None
    except ValueError:  # a name with a null character
        raise EnvironmentSpecError(f"{where!r}: is not the name of a file") from None
    if len(data) > most_bytes:
        raise EnvironmentSpecError(f"{where}: is larger than {most_bytes / 1e6:.0f} MB")
    return _decode(data, where)


def _decode(data: bytes, where: str) -> str:
    mark, encoding = next(
        ((mark, encoding) for mark, encoding in BOMS if data.startswith(mark)), (b"", "utf-8")
    )
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise EnvironmentSpecError(
            f"{where}: is not text in {encoding} (byte {error.start + len(mark)}): save it as UTF-8"
        ) from None
