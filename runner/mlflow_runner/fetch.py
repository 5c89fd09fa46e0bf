"""Download one URI to one path: the snapshot of a run, or a remote parameter value.

The login to the tracking server is sent to that server and to the hosts that may receive it,
whatever host a URI, a run, a model or a redirect names.
"""

import os
import shutil
import sys
import tempfile
import time
from typing import Callable, List, Optional, Sequence
from urllib.parse import urlsplit

from mlflow_runner.contract import tracking_variables
from mlflow_runner.contract.answers import NeedsMlflow, Refused, Unavailable
from mlflow_runner.contract.redact import redact
from mlflow_runner.log.output import PREFIX, as_line
from mlflow_runner.report.backoff import Backoff
from mlflow_runner.tracking import connect, connect_artifacts, login, web

PATIENCE_S = 120.0
"""How long a download is retried when the server does not answer or breaks off."""
SERVED_BY_MLFLOW = "/mlflow-artifacts/artifacts"
"""In the path of what a tracking server serves, which may be a folder (MLflow's
HttpArtifactRepository).
"""


def main(arguments: List[str]) -> int:
    """`fetch URI PATH`; 1 when it fails, with the reason on standard error."""
    uri, path = arguments
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        _fetch(uri, path)
    except (Unavailable, Refused, NeedsMlflow, OSError) as error:
        reason = str(error)
    except Exception as error:  # each artifact store has exceptions of its own
        reason = f"{type(error).__name__}: {error}"
    else:
        return 0
    _say(f"{uri}: {reason}")
    return 1


def _fetch(uri: str, path: str) -> None:
    server = os.environ["MLFLOW_TRACKING_URI"]
    hosts = tracking_variables.credential_hosts(os.environ)
    run_id, _, artifact = uri[len("runs:/") :].partition("/")
    if uri.startswith("runs:/") and _is_file(artifact):
        _retry(uri, lambda: _download_artifact(server, hosts, run_id, artifact, path))
    elif uri.startswith(("http://", "https://")) and SERVED_BY_MLFLOW not in urlsplit(uri).path:
        _retry(uri, lambda: _download_file(server, hosts, uri, path))
    else:
        _download(server, hosts, uri, path)


def _retry(uri: str, download: Callable[[], None]) -> None:
    """Call `download` until it succeeds. Raises Unavailable after `PATIENCE_S`."""
    backoff, until_s = Backoff(), time.monotonic() + PATIENCE_S
    while True:
        try:
            return download()
        except Unavailable as error:
            backoff.fail(time.monotonic())
            if backoff.due_s >= until_s:
                raise
            if backoff.failures == 1:
                _say(f"{uri}: {error}, retrying")
        time.sleep(max(0.0, backoff.due_s - time.monotonic()))


def _say(text: str) -> None:
    print(f"{PREFIX}{as_line(redact(login.hide(text)))}", file=sys.stderr, flush=True)


def _is_file(artifact: str) -> bool:
    """Plain HTTP fetches single files only; only these two are certain to be files."""
    return artifact.endswith(("snapshot.tar.gz", "packages.tar"))


def _download_artifact(
    server: str, hosts: Sequence[str], run_id: str, artifact: str, path: str
) -> None:
    run = connect(server, run_id, hosts).get()
    connect_artifacts(server, run_id, run.artifact_uri, hosts).download(artifact, path)


def _download_file(server: str, hosts: Sequence[str], uri: str, path: str) -> None:
    """Download a file of any web server, which MLflow's client does not support.

    A login in the URI is sent to the URI's host only.
    """
    url, own = login.split_url(uri)

    def authorize(there: str) -> Optional[str]:
        if own and login.may_be_sent(there, url):
            return own
        return login.authorization() if login.may_be_sent(there, server, hosts) else None

    web.download(url, path, authorize)


def _download(server: str, hosts: Sequence[str], uri: str, path: str) -> None:
    from mlflow_runner.tracking.client import import_mlflow, restrict_login

    mlflow = import_mlflow()
    restrict_login(server, hosts)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as directory:
        item = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=directory)
        shutil.move(item.rstrip("/"), path)
