"""What is downloaded before the command starts: whom the login goes to meanwhile, and what a server
in trouble costs.
"""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlflow.tracking import MlflowClient

from mlflow_runner.contract.submission import Archive, Download
from tests.bed.proxy import Proxy
from tests.bed.runs import Seen
from tests.bed.server import use

LOGIN = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_TRACKING_USERNAME": "ada",
    "MLFLOW_TRACKING_PASSWORD": "correct-horse",
}


class Web:
    """A web server that has one file everywhere.

    `to`: where it redirects instead; `cut`: how often it breaks off, `busy`: answers 503.
    """

    def __init__(self, to=None, cut=0, busy=0):
        self.logins: list[str | None] = []
        web, left = self, {"cut": cut, "busy": busy}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                web.logins.append(self.headers.get("Authorization"))
                kind = next((kind for kind in left if left[kind]), None)
                if kind:
                    left[kind] -= 1
                self.send_response(503 if kind == "busy" else 307 if to else 200)
                if to:
                    self.send_header("Location", to + self.path)
                self.send_header("Content-Length", "0" if kind == "busy" or to else "8")
                self.end_headers()
                self.wfile.write(
                    b"" if kind == "busy" or to else b"cont" if kind == "cut" else b"content\n"
                )

            def log_message(self, *_):
                """Tests look at `logins`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.place = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def web():
    """A function that starts a web server."""
    with contextlib.ExitStack() as stack:

        def start(**keywords):
            server = Web(**keywords)
            stack.callback(server.close)
            return server

        yield start


def fetched(runner, tmp_path, uri, **keywords):
    """What the command reads of the parameter; the run."""
    path = str(tmp_path / "in" / "file")
    run_id, process = runner(f"cat {path}", downloads=(Download(uri, path),), env=LOGIN, **keywords)
    out, _ = process.communicate(timeout=90)
    return Seen(run_id), out.decode()


@pytest.mark.parametrize(("scheme", "path"), [
    ("http", "/data.csv"),
    ("http", "/api/2.0/mlflow-artifacts/artifacts/data.csv"),
    ("mlflow-artifacts", "/data.csv"),
])  # fmt: skip
@pytest.mark.parametrize("listed", [False, True])
def test_the_login_goes_to_the_host_of_a_parameter_only_where_that_is_listed(
    server, runner, tmp_path, web, scheme, path, listed
):
    elsewhere = web()
    fetched(
        runner,
        tmp_path,
        f"{scheme}://{elsewhere.place}{path}",
        credential_hosts=(elsewhere.place,) if listed else (),
    )
    assert elsewhere.logins and {value is not None for value in elsewhere.logins} == {listed}


@pytest.mark.parametrize("path", ["/data.csv", "/api/2.0/mlflow-artifacts/artifacts/data.csv"])
def test_a_redirect_to_another_port_takes_no_login_along(server, runner, tmp_path, web, path):
    elsewhere = web()
    listed = web(to=f"http://{elsewhere.place}")
    fetched(runner, tmp_path, f"http://{listed.place}{path}", credential_hosts=(listed.place,))
    assert None not in listed.logins and elsewhere.logins and set(elsewhere.logins) == {None}


@pytest.mark.parametrize("kind", ["runs", "models"])
def test_what_mlflow_knows_of_may_lie_elsewhere_too(runner, tmp_path, web, monkeypatch, kind):
    """A run or a model version whose artifact location another user chose.

    Current MLflow servers refuse that; other stores do not.
    """
    use(f"sqlite:///{tmp_path}/{kind}.db", monkeypatch)
    elsewhere, client = web(), MlflowClient()
    place = f"http://{elsewhere.place}/api/2.0/mlflow-artifacts/artifacts"
    if kind == "runs":
        experiment = client.create_experiment(f"at {elsewhere.place}", artifact_location=place)
        uri = f"runs:/{client.create_run(experiment).info.run_id}/data.csv"
    else:
        name = f"at-{elsewhere.place.replace(':', '-')}"
        client.create_registered_model(name)
        uri = f"models:/{name}/{client.create_model_version(name, place).version}"
    fetched(runner, tmp_path, uri)
    assert elsewhere.logins and set(elsewhere.logins) == {None}


def test_a_file_of_any_web_server_can_be_a_parameter(server, runner, tmp_path, web):
    found, out = fetched(runner, tmp_path, f"http://{web().place}/data.csv")
    assert found.status == "FINISHED" and "\ncontent\n" in out


def test_the_login_in_a_parameter_goes_where_the_parameter_says_and_no_further(
    server, runner, tmp_path, web
):
    elsewhere = web()
    first = web(to=f"http://{elsewhere.place}")
    found, out = fetched(runner, tmp_path, f"http://bob:p%40ss@{first.place}/data.csv")
    assert found.status == "FINISHED" and (first.logins, elsewhere.logins) == (
        ["Basic Ym9iOnBAc3M="],
        [None],
    )
    assert "p%40ss" not in out and b"p%40ss" not in found.log


def test_the_login_in_a_parameter_that_cannot_be_had_is_in_no_tag_and_no_message(
    server, runner, tmp_path
):
    told = tmp_path / "told"
    found, out = fetched(
        runner,
        tmp_path,
        f"http://bob:p%40ss@127.0.0.1:{server.port}/none.csv",
        termination_log=str(told),
    )
    assert (found.status, found.cause) == ("FAILED", "DownloadError") and (
        "/none.csv could not be downloaded"
    ) in found.tags["compute.message"]
    assert "p%40ss" not in out + json.dumps(found.tags) + told.read_text() + found.log.decode()


@pytest.mark.parametrize("trouble", [{"busy": 2}, {"cut": 2}])
def test_a_server_that_is_in_trouble_for_a_moment_costs_no_run(
    server, runner, tmp_path, web, trouble
):
    found, out = fetched(runner, tmp_path, f"http://{web(**trouble).place}/data.csv")
    assert found.status == "FINISHED" and "\ncontent\n" in out and out.count(", retrying") <= 1


def test_a_tracking_server_that_is_in_trouble_for_a_moment_costs_no_snapshot(
    server, runner, tmp_path, monkeypatch
):
    proxy = Proxy(server.port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    proxy.mode = 503
    submission = {
        "archive": Archive("0" * 64, None, "code/snapshot.tar.gz"),
        "unpack_dir": str(tmp_path / "work"),
    }
    _run_id, process = runner("true", termination_log=str(tmp_path / "told"), **submission)
    threading.Timer(3, lambda: setattr(proxy, "mode", "open")).start()
    process.communicate(timeout=60)
    asked = [call.endpoint for call in proxy.calls if call.method == "GET"]
    proxy.close()
    assert asked.count("runs/get") > 1 and any(
        endpoint.endswith("snapshot.tar.gz") for endpoint in asked
    )
