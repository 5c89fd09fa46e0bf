"""Download one URI to one path: the snapshot of a run, or a remote parameter value."""

import os
import shutil
import sys
import tempfile

from mlflow_runner.redact import redact
from mlflow_runner.supervise import PREFIX
from mlflow_runner.tracking import Refused, Unavailable, connect


def main(arguments) -> int:
    """`fetch URI PATH`; 1 when it failed, with the reason on standard error."""
    uri, path = arguments
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        if uri.startswith("runs:/"):
            run_id, _, artifact = uri[len("runs:/") :].partition("/")
            if _is_file(artifact):
                connect(os.environ["MLFLOW_TRACKING_URI"], run_id).download(artifact, path)
                return 0
        _download(uri, path)
        return 0
    except (Unavailable, Refused, OSError, ImportError) as error:
        reason = str(error)
    except Exception as error:  # each artifact store has exceptions of its own
        reason = f"{type(error).__name__}: {error}"
    print(redact(f"{PREFIX}{uri}: {reason}"), file=sys.stderr)
    return 1


def _is_file(artifact):
    """Plain HTTP fetches single files only, and these two are all the runner knows to be one."""
    return artifact.endswith(("snapshot.tar.gz", "packages.tar"))


def _download(uri, path):
    import mlflow.artifacts

    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as directory:
        found = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=directory)
        shutil.move(found.rstrip("/"), path)
