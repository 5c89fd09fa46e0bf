"""The same calls through MLflow's own client, for every store that plain HTTP does not reach."""

import os
import shutil
import tempfile
import time
from typing import Dict, Iterable

from mlflow_runner.tracking import Missing, NeedsMlflow, Refused, RunInfo, Unavailable

NO_RETRY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""The reporter retries by itself, and must stay responsive meanwhile."""
KINDS = {"RESOURCE_DOES_NOT_EXIST": Missing, "UNAUTHENTICATED": Refused, "PERMISSION_DENIED": Refused}
"""What MLflow's error codes mean; every other may pass."""


class ClientRun:
    """One run of the store at `tracking_uri`. Every method raises Unavailable or Refused."""

    def __init__(self, tracking_uri: str, run_id: str):
        for name, value in NO_RETRY.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise NeedsMlflow(f"tracking URI {tracking_uri} needs the package mlflow: {error}") from None
        self._client = MlflowClient(tracking_uri)
        self._tracking_uri = tracking_uri
        self._run_id = run_id

    def get(self) -> RunInfo:
        run = self._call(self._client.get_run, self._run_id)
        return RunInfo(run.info.status, run.info.artifact_uri, dict(run.data.tags))

    def set_status(self, status: str, ended: bool) -> None:
        if ended:
            self._call(self._client.set_terminated, self._run_id, status)
        else:
            self._call(self._client.update_run, self._run_id, status)

    def log(self, tags: Dict[str, str], metrics: Dict[str, float]) -> None:
        from mlflow.entities import Metric, RunTag

        now_ms = int(time.time() * 1000)
        self._call(
            self._client.log_batch,
            self._run_id,
            metrics=[Metric(key, value, now_ms, 0) for key, value in metrics.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def remove_tags(self, names: Iterable[str]) -> None:
        for name in names:
            self._call(self._client.delete_tag, self._run_id, name)

    def upload(self, artifact: str, data: bytes) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, os.path.basename(artifact))
            with open(path, "wb") as file:
                file.write(data)
            self.upload_file(artifact, path)

    def upload_file(self, artifact: str, path: str) -> None:
        folder, name = os.path.split(artifact)
        with tempfile.TemporaryDirectory() as directory:
            if os.path.basename(path) != name:  # MLflow names the artifact after the file
                os.symlink(os.path.abspath(path), os.path.join(directory, name))
                path = os.path.join(directory, name)
            self._call(self._client.log_artifact, self._run_id, path, folder or None)

    def download(self, artifact: str, path: str) -> None:
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as directory:
            found = self._call(self._client.download_artifacts, self._run_id, artifact, directory)
            shutil.move(found, path)

    @staticmethod
    def _call(function, *arguments, **keywords):
        from mlflow.exceptions import MlflowException

        try:
            return function(*arguments, **keywords)
        except MlflowException as error:
            raise KINDS.get(error.error_code, Unavailable)(str(error)) from None
        except Exception as error:  # each artifact store has exceptions of its own
            raise Unavailable(f"{type(error).__name__}: {error}") from None
