"""MLflow's REST API 2.0 for one run, with nothing but the standard library.

Credentials are those of MLflow's own client: MLFLOW_TRACKING_USERNAME and
_PASSWORD, _TOKEN, the mounted service-account token for MLFLOW_TRACKING_AUTH=kubernetes,
and the TLS settings (https://mlflow.org/docs/latest/rest-api.html, "environment variables").
"""

import base64
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Dict, Iterable, Optional

from mlflow_runner.tracking import Missing, Refused, RunInfo, Unavailable

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount/token"
TIMEOUT_S = 30


class RestServer:
    """The server at `tracking_uri`."""

    def __init__(self, tracking_uri: str):
        self.base = tracking_uri.rstrip("/")

    def call(self, method: str, endpoint: str, body=None) -> dict:
        """The answer to one call of the API. Raises Unavailable or Refused."""
        data = None if body is None else json.dumps(body).encode()
        try:
            with request(method, f"{self.base}/api/2.0/mlflow/{endpoint}", data, "application/json") as response:
                return json.loads(response.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError) as error:  # the answer broke off, or came from something else
            raise Unavailable(f"{method} {endpoint}: {type(error).__name__}: {error}") from None

    def get_run(self, run_id: str) -> dict:
        """The run as the API gives it (`info`, `data`). Raises Unavailable or Refused, as all methods do."""
        return self.call("GET", f"runs/get?{urllib.parse.urlencode({'run_id': run_id})}")["run"]

    def set_status(self, run_id: str, status: str, ended: bool) -> None:
        body = {"run_id": run_id, "status": status}
        if ended:
            body["end_time"] = int(time.time() * 1000)
        self.call("POST", "runs/update", body)

    def log(self, run_id: str, tags: Dict[str, str], metrics: Dict[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        self.call(
            "POST",
            "runs/log-batch",
            {
                "run_id": run_id,
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
                "metrics": [{"key": k, "value": v, "timestamp": now_ms, "step": 0} for k, v in metrics.items()],
            },
        )


def tags_of(run: dict) -> Dict[str, str]:
    """The tags of a run as the API gives it."""
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


class RestRun:
    """One run on the server at `tracking_uri`. Every method raises Unavailable or Refused."""

    def __init__(self, tracking_uri: str, run_id: str):
        self._server = RestServer(tracking_uri)
        self._run_id = run_id
        self._artifacts: Optional[str] = None

    def get(self) -> RunInfo:
        run = self._server.get_run(self._run_id)
        self._artifacts = self._artifact_root(run["info"]["artifact_uri"])
        return RunInfo(run["info"]["status"], run["info"]["artifact_uri"], tags_of(run))

    def set_status(self, status: str, ended: bool) -> None:
        self._server.set_status(self._run_id, status, ended)

    def log(self, tags: Dict[str, str], metrics: Dict[str, float]) -> None:
        self._server.log(self._run_id, tags, metrics)

    def remove_tags(self, names: Iterable[str]) -> None:
        for name in names:
            self._server.call("POST", "runs/delete-tag", {"run_id": self._run_id, "key": name})

    def upload(self, artifact: str, data: bytes) -> None:
        request("PUT", self._artifact_url(artifact), data, "text/plain").close()

    def upload_file(self, artifact: str, path: str) -> None:
        with open(path, "rb") as file:
            request("PUT", self._artifact_url(artifact), file, "application/gzip", os.path.getsize(path)).close()

    def download(self, artifact: str, path: str) -> None:
        with request("GET", self._artifact_url(artifact)) as response, open(path, "wb") as file:
            shutil.copyfileobj(response, file, 1 << 20)

    def _artifact_url(self, artifact):
        if self._artifacts is None:
            self.get()
        return f"{self._artifacts}/{urllib.parse.quote(artifact)}"

    def _artifact_root(self, uri):
        """mlflow-artifacts:/PATH is served by the tracking server, mlflow-artifacts://HOST/PATH by another."""
        parsed = urllib.parse.urlparse(uri)
        base = self._server.base
        if parsed.netloc:
            base = f"{urllib.parse.urlparse(self._server.base).scheme}://{parsed.netloc}"
        return f"{base}/api/2.0/mlflow-artifacts/artifacts{urllib.parse.quote(parsed.path)}"


def request(method, url, data=None, content_type=None, size=None):
    """The response to one HTTP request. Raises Unavailable or Refused."""
    asked = urllib.request.Request(url, data=data, method=method)
    if content_type and data is not None:
        asked.add_header("Content-Type", content_type)
    if size is not None:
        asked.add_header("Content-Length", str(size))
    try:
        authorization = _authorization()
        if authorization:
            asked.add_unredirected_header("Authorization", authorization)
        return _opener(url).open(asked, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        text = error.read(500).decode(errors="replace")
        kind = Unavailable if error.code >= 500 or error.code in (408, 429) else Missing if error.code == 404 else Refused
        raise kind(f"{method} {_path(url)}: {error.code} {text}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{method} {_path(url)}: {error}") from None


def _path(url):
    return urllib.parse.urlparse(url).path


def _authorization():
    username, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if username and password:
        return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if not token and os.environ.get("MLFLOW_TRACKING_AUTH") == "kubernetes":
        with open(TOKEN_PATH) as file:  # read each time: the kubelet renews it
            token = file.read().strip()
    return f"Bearer {token}" if token else None


def _opener(url):
    if not url.startswith("https:"):
        return urllib.request.build_opener()
    import ssl

    bundle = next((os.environ[name] for name in
                   ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)), None)  # fmt: skip
    context = ssl.create_default_context(cafile=bundle)
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    client = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    if client:
        context.load_cert_chain(client)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
