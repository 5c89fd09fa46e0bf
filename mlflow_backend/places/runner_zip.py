"""The runner as one zip, so that client and runner always have the same version."""

import functools
import io
import zipfile
from pathlib import Path

MAIN = (
    "import sys\nfrom mlflow_runner.__main__ import main\nif __name__ == '__main__':\n    "
    "sys.exit(main(sys.argv[1:]))\n"
)
EPOCH = (1980, 1, 1, 0, 0, 0)


@functools.cache
def build() -> bytes:
    """The zip, the same for the same sources; `python3 FILE run` starts it."""
    import mlflow_runner

    root = Path(mlflow_runner.__file__).parent
    sources = {
        f"mlflow_runner/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in root.rglob("*.py")
    }
    sources["__main__.py"] = MAIN.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sources):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), sources[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
