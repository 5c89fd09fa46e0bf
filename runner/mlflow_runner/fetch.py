"""Download one URI to one path: the snapshot of a run, or a remote parameter value."""

import os
import shutil
import sys
import tempfile

from mlflow_runner.output import PREFIX, as_line
from mlflow_runner.redact import redact
from mlflow_runner.tracking import NeedsMlflow, Refused, Unavailable, connect, connect_artifacts, login


def main(arguments) -> int:
    """`fetch URI PATH`; 1 when it failed, with the reason on standard error."""
    uri, path = arguments
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        run_id, _, artifact = uri[len("runs:/") :].partition("/")
        if uri.startswith("runs:/") and _is_file(artifact):
            _download_artifact(run_id, artifact, path)
        else:
            _download(uri, path)
        return 0
    except (Unavailable, Refused, NeedsMlflow, OSError) as error:
        reason = str(error)
    except Exception as error:  # each artifact store has exceptions of its own
        reason = f"{type(error).__name__}: {error}"
    print(f"{PREFIX}{as_line(redact(login.hide(f'{uri}: {reason}')))}", file=sys.stderr)
    return 1


def _is_file(artifact):
    """Plain HTTP fetches single files only, and these two are all the runner knows to be one."""
    return artifact.endswith(("snapshot.tar.gz", "packages.tar"))


def _download_artifact(run_id, artifact, path):
    target, hosts = os.environ["MLFLOW_TRACKING_URI"], login.hosts_in(os.environ.get(login.CREDENTIAL_HOSTS, ""))
    found = connect(target, run_id, hosts).get()
    connect_artifacts(target, run_id, found.artifact_uri, hosts).download(artifact, path)


def _download(uri, path):
    from mlflow_runner.tracking.client import import_mlflow

    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as directory:
        found = import_mlflow().artifacts.download_artifacts(artifact_uri=uri, dst_path=directory)
        shutil.move(found.rstrip("/"), path)
