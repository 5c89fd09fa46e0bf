"""MLflow's REST API 2.0 with the standard library only
(https://mlflow.org/docs/latest/rest-api.html).
"""

import http.client
import json
import os
import time
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, Optional, Sequence
from urllib.parse import quote, urlencode, urlsplit

from mlflow_runner.contract.answers import Missing, RunInfo, Unavailable
from mlflow_runner.tracking import login, web

if TYPE_CHECKING:
    Object = Dict[str, Any]
    """A JSON object of MLflow's API."""

PAGE = 200
MAX_PAGES = 1000
"""A server that sends more pages than this never stops."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


class RestServer:
    """The server at `tracking_uri`. It receives the login, and so do `credential_hosts` (HOST or
    HOST:PORT).

    Every method raises Unavailable, also for an answer that is not MLflow's, or a class of Refused.
    """

    def __init__(self, tracking_uri: str, credential_hosts: Sequence[str] = ()) -> None:
        self.base = tracking_uri.rstrip("/")
        self._credential_hosts = credential_hosts

    def call(self, method: str, endpoint: str, body: Optional["Object"] = None) -> "Object":
        """The answer to one call of the API, a JSON object."""
        data = None if body is None else json.dumps(body).encode()
        try:
            response = self.send(
                method,
                f"{self.base}/api/2.0/mlflow/{endpoint}",
                data,
                {"Content-Type": "application/json"},
            )
            answer = json.loads(web.read(response, MAX_ANSWER_BYTES) or b"{}")
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            # an incomplete answer, or one from another server
            raise Unavailable(f"{method} {endpoint}: {type(error).__name__}: {error}") from None
        if not isinstance(answer, dict):
            raise Unavailable(f"{method} {endpoint}: the answer is not a JSON object")
        return answer

    def send(
        self,
        method: str,
        url: str,
        data: "web.Data" = None,
        headers: Optional[Dict[str, str]] = None,
        limit: Optional[web.Limit] = None,
    ) -> http.client.HTTPResponse:
        """The response to one request, to this server or another, with the login if allowed."""
        return web.send(method, url, data, headers, limit, self._authorize)

    def download(self, url: str, path: str) -> None:
        """Write the body of `url`, on this server or another, to the file.

        Raises OSError if the file cannot be written.
        """
        web.download(url, path, self._authorize)

    def get_run(self, run_id: str) -> "Object":
        """The run as the API returns it (`info`, `data`)."""
        return check_run(self.call("GET", f"runs/get?{urlencode({'run_id': run_id})}").get("run"))

    def search_runs(self, experiment_ids: Sequence[str], filter_string: str) -> Iterator["Object"]:
        """The runs of the experiments that match MLflow's filter, page by page."""
        query: "Object" = {
            "experiment_ids": list(experiment_ids),
            "filter": filter_string,
            "max_results": PAGE,
        }
        for _ in range(MAX_PAGES):
            page = self.call("POST", "runs/search", query)
            runs, token = page.get("runs", []), page.get("next_page_token")
            if not isinstance(runs, list):
                raise Unavailable("POST runs/search: the answer has no list of runs")
            yield from map(check_run, runs)
            if not token:
                return
            query["page_token"] = token
        raise Unavailable("POST runs/search: the answer has no last page")

    def set_status(self, run_id: str, status: str, ended: bool) -> None:
        """Set the status, and the end time if the run has `ended`."""
        body: "Object" = {"run_id": run_id, "status": status}
        if ended:
            body["end_time"] = int(time.time() * 1000)
        self.call("POST", "runs/update", body)

    def log(self, run_id: str, tags: Dict[str, str], metrics: Dict[str, float]) -> None:
        """Set tags and log metrics in one request."""
        now_ms = int(time.time() * 1000)
        self.call(
            "POST",
            "runs/log-batch",
            {
                "run_id": run_id,
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
                "metrics": [
                    {"key": k, "value": v, "timestamp": now_ms, "step": 0}
                    for k, v in metrics.items()
                ],
            },
        )

    def remove_tag(self, run_id: str, name: str) -> None:
        """Remove a tag. A tag that another process has removed is not an error: MLflow answers as
        if the run were missing.
        """
        try:
            self.call("POST", "runs/delete-tag", {"run_id": run_id, "key": name})
        except Missing as error:
            if not error.is_mlflows:
                raise

    def _authorize(self, url: str) -> Optional[str]:
        return (
            login.authorization()
            if login.may_be_sent(url, self.base, self._credential_hosts)
            else None
        )


def check_run(run: Any) -> "Object":
    """`run` if it has the shape of a run of the API: the fields that are read have the right types.
    Raises Unavailable.
    """
    info, data = (run.get("info"), run.get("data", {})) if isinstance(run, dict) else (None, None)
    texts = ("run_id", "status", "artifact_uri", "experiment_id", "lifecycle_stage")
    if (
        isinstance(info, dict)
        and isinstance(data, dict)
        and all(isinstance(info.get(name, ""), str) for name in texts)
        and info.get("run_id")
        and info.get("status")
        and isinstance(info.get("start_time", 0), int)
        and isinstance(data.get("tags", []), list)
        and all(
            isinstance(tag, dict) and _is_text(tag.get("key")) and _is_text(tag.get("value", ""))
            for tag in data.get("tags", [])
        )
    ):
        return {**run, "data": data}
    raise Unavailable("the answer does not contain an MLflow run")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def tags_of(run: "Object") -> Dict[str, str]:
    """The tags of a run that `check_run` returned."""
    return {tag["key"]: tag.get("value", "") for tag in run["data"].get("tags", [])}


def info_of(run: "Object") -> RunInfo:
    """The fields that the runner needs of a run that `check_run` returned."""
    info = run["info"]
    deleted = info.get("lifecycle_stage") == "deleted"
    return RunInfo(
        info["status"],
        info.get("artifact_uri", ""),
        tags_of(run),
        info["run_id"],
        info.get("experiment_id", ""),
        deleted,
    )


class RestRun:
    """One run on the server at `tracking_uri`.

    Every method raises Unavailable or a class of Refused.
    """

    def __init__(
        self,
        tracking_uri: str,
        run_id: str,
        artifact_uri: Optional[str] = None,
        credential_hosts: Sequence[str] = (),
    ) -> None:
        self._server = RestServer(tracking_uri, credential_hosts)
        self._run_id = run_id
        self._artifacts = artifact_root(self._server.base, artifact_uri) if artifact_uri else None

    def get(self) -> RunInfo:
        """Read the run."""
        return info_of(self._server.get_run(self._run_id))

    def set_status(self, status: str, ended: bool) -> None:
        """See `RestServer.set_status`."""
        self._server.set_status(self._run_id, status, ended)

    def log(self, tags: Dict[str, str], metrics: Dict[str, float]) -> None:
        """See `RestServer.log`."""
        self._server.log(self._run_id, tags, metrics)

    def remove_tags(self, names: Iterable[str]) -> None:
        """Remove tags, one by one; a missing tag is not an error."""
        for name in names:
            self._server.remove_tag(self._run_id, name)

    def search(self, experiment_id: str, filter_string: str) -> Iterator[RunInfo]:
        """The runs of the experiment that match MLflow's filter."""
        return map(info_of, self._server.search_runs([experiment_id], filter_string))

    def other(self, run_id: str) -> "RestRun":
        """The client for another run of the same server."""
        return RestRun(self._server.base, run_id)

    def upload(self, artifact: str, data: bytes) -> None:
        """Store `data` as the artifact."""
        self._put(artifact, data, "text/plain", len(data))

    def upload_file(self, artifact: str, path: str) -> None:
        """Store the file as the artifact. Raises OSError if the file cannot be read."""
        with open(path, "rb") as file:
            self._put(artifact, file, "application/gzip", os.fstat(file.fileno()).st_size)

    def download(self, artifact: str, path: str) -> None:
        """Write the artifact to the file. Raises OSError if the file cannot be written."""
        self._server.download(self._artifact_url(artifact), path)

    def _put(self, artifact: str, data: "web.Data", content_type: str, size: int) -> None:
        limit = web.Limit(web.CALL_S)
        limit.extend(size)
        headers = {"Content-Type": content_type, "Content-Length": str(size)}
        self._server.send("PUT", self._artifact_url(artifact), data, headers, limit).close()

    def _artifact_url(self, artifact: str) -> str:
        if self._artifacts is None:
            self._artifacts = artifact_root(self._server.base, self.get().artifact_uri)
        return f"{self._artifacts}/{quote(artifact)}"


def artifact_root(server: str, artifact_uri: str) -> str:
    """The URL of a run's artifacts: mlflow-artifacts:/PATH is on the tracking server,
    mlflow-artifacts://HOST/PATH on another server, and an http(s) URL is used as it is (MLflow's
    MlflowArtifactsRepository, HttpArtifactRepository).
    """
    there, here = urlsplit(artifact_uri), urlsplit(server)
    if there.scheme in ("http", "https"):
        return artifact_uri.rstrip("/")
    return f"{here.scheme}://{there.netloc or here.netloc}{here.path}{ARTIFACTS}{quote(there.path)}"
