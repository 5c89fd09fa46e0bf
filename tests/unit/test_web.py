"""HTTP with the standard library: every call ends in time, and says what an answer means without
showing a header.
"""

import contextlib
import http.client
import socket
import ssl
import threading

import pytest
import trustme

import mlflow_runner
from mlflow_runner.contract.answers import Denied, Missing, Refused, TooLarge, Unavailable
from mlflow_runner.tracking import web
from mlflow_runner.tracking.rest import RestRun, RestServer, artifact_root, check_run, info_of

RUN = {
    "info": {"run_id": "r", "status": "RUNNING", "artifact_uri": "mlflow-artifacts:/0/r/artifacts"},
    "data": {},
}


@contextlib.contextmanager
def serve(*answers, context=None):
    """A server that gives one answer (bytes, or a function of the connection) to each connection in
    turn; its address, and what it was sent.
    """
    listener, heard = socket.create_server(("127.0.0.1", 0)), []

    def run():
        for answer in answers:
            with contextlib.suppress(OSError):
                connection = listener.accept()[0]
                with (
                    connection
                    if context is None
                    else context.wrap_socket(connection, server_side=True) as stream
                ):
                    heard.append(_headers(stream))
                    if callable(answer):
                        answer(stream)
                    else:
                        stream.sendall(answer)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield (
            f"{'http' if context is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}",
            heard,
        )
    finally:
        listener.close()


def _headers(stream) -> str:
    data = b""
    while b"\r\n\r\n" not in data and (block := stream.recv(1)):
        data += block
    return data.decode()


def answer(status, body=b"{}", **headers):
    lines = [
        f"HTTP/1.1 {status} Said",
        f"Content-Length: {len(body)}",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(("status", "kind"), [
    (400, Refused), (401, Denied), (403, Denied), (404, Missing), (405, Refused), (408, Unavailable), (411, Refused), (413, TooLarge),
    (425, Unavailable), (429, Unavailable), (500, Unavailable), (502, Unavailable), (507, Unavailable),
])  # fmt: skip
def test_what_a_status_means(status, kind):
    with (
        serve(answer(status, b"\x1b[2J why\nnot")) as (uri, _),
        pytest.raises((Refused, Unavailable)) as raised,
    ):
        RestServer(uri).call("GET", "runs/get")
    assert (type(raised.value), str(raised.value)) == (
        kind,
        f"GET /api/2.0/mlflow/runs/get: {status} [2J why not",
    )


@pytest.mark.parametrize("body", [
    b"[]", b"null", b"7", b"<html>login</html>", b"{}", b'{"run": null}', b'{"run": []}', b'{"run": {"info": null}}', b'{"run": {"info": {}}}',
    b'{"run": {"info": {"run_id": 7, "status": "RUNNING"}}}', (b'{"run": {"info": {"run_id": "r", '
                                                              b'"status": "RUNNING"}, "data": []}}'),
    b'{"run": {"info": {"run_id": "r", "status": "RUNNING"}, "data": {"tags": {"a": "b"}}}}',
    (b'{"run": {"info": {"run_id": "r", "status": "RUNNING"}, "data": {"tags": [{"key": "a", '
    b'"value": 1}]}}}'),
    b'{"run": {"info": {"run_id": "r", "status": "RUNNING", "start_time": "x"}}}', b"[" * 100_000,
])  # fmt: skip
def test_an_answer_that_is_not_mlflows_is_an_outage_and_no_crash(body):
    with serve(answer(200, body)) as (uri, _), pytest.raises(Unavailable):
        RestServer(uri).get_run("r")


def test_a_run_without_data_and_tags_without_value_are_read():
    run = {**RUN, "data": {"tags": [{"key": "empty"}]}}
    assert (info_of(check_run({"info": RUN["info"]})).tags, info_of(check_run(run)).tags) == (
        {},
        {"empty": ""},
    )
    assert info_of(check_run({"info": {**RUN["info"], "lifecycle_stage": "deleted"}})).deleted


def test_a_body_larger_than_the_limit_is_not_read(monkeypatch):
    monkeypatch.setattr("mlflow_runner.tracking.rest.MAX_ANSWER_BYTES", 100)
    with (
        serve(answer(200, b'"' + b"x" * 200 + b'"')) as (uri, _),
        pytest.raises(Unavailable, match="the answer has more than 100 bytes"),
    ):
        RestServer(uri).call("GET", "runs/get")


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_byte_now_and_then_does_not_hold_a_caller_longer_than_its_limit(monkeypatch, part):
    """Each byte comes sooner than any time limit for a single read."""
    closed = threading.Event()

    def drip(stream):
        stream.sendall(
            b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 1000000\r\n\r\n" if part == "body" else b"")
        )
        while not closed.wait(0.05):
            stream.sendall(b"x")

    monkeypatch.setattr(web, "CALL_S", 0.4)
    with serve(drip) as (uri, _):
        with pytest.raises(Unavailable, match=r"no complete answer in time|timed out"):
            RestServer(uri).call("GET", "runs/get")
        closed.set()


def test_a_server_that_refuses_a_body_before_it_has_read_it_is_understood():
    def refuse(stream):
        stream.sendall(answer(413))
        stream.shutdown(socket.SHUT_RDWR)

    with serve(refuse) as (uri, _), pytest.raises(TooLarge):
        RestRun(uri, "r", "mlflow-artifacts:/0").upload("logs/a", b"x" * 4_000_000)


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_redirect_keeps_method_body_and_on_the_same_server_the_login(monkeypatch, status, method):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    got = []
    with (
        serve(
            lambda stream: stream.sendall(answer(status, Location="/there")),
            lambda stream: read_body(stream, got),
        ) as (uri, heard),
        RestServer(uri).send(
            method,
            f"{uri}/here",
            b"12345" if method != "GET" else None,
            {"Content-Type": "text/plain"},
        ),
    ):
        pass
    assert [text.split(" HTTP")[0] for text in heard] == [f"{method} /here", f"{method} /there"]
    assert got == [b"12345" if method != "GET" else b""]
    assert ["Authorization: Bearer abc" in text for text in heard] == [True, True]


def read_body(stream, got):
    stream.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        got.append(stream.recv(100))
    if not got:
        got.append(b"")
    stream.sendall(answer(200))


def test_a_redirect_to_another_host_gets_no_login(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    with (
        serve(answer(200)) as (other, elsewhere),
        serve(answer(308, Location=f"{other}/x")) as (uri, here),
    ):
        RestServer(uri).call("GET", "runs/get")
    assert ("Authorization" in here[0], "Authorization" in elsewhere[0]) == (True, False)
    with (
        serve(answer(200)) as (other, elsewhere),
        serve(answer(308, Location=f"{other}/x")) as (uri, here),
    ):
        RestServer(uri, [other.removeprefix("http://")]).call("GET", "runs/get")
    assert "Authorization: Bearer abc" in elsewhere[0]


def test_a_redirect_that_would_lose_the_body_names_the_address_to_use():
    with (
        serve(answer(302, b"", Location="https://there/x?token=1")) as (uri, _),
        pytest.raises(Refused) as refused,
    ):
        RestServer(uri).call("POST", "runs/update", {})
    assert str(refused.value) == "POST /api/2.0/mlflow/runs/update: 302 to https://there/x"


def test_the_runner_names_itself():
    with serve(answer(200)) as (uri, heard):
        RestServer(uri).call("GET", "runs/get")
    assert f"User-Agent: mlflow-compute/{mlflow_runner.VERSION} Python/" in heard[0]


def test_a_server_that_repeats_the_login_in_its_answer_does_not_get_it_into_a_message(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cr3t-token")
    with (
        serve(answer(403, b"you sent Bearer s3cr3t-token")) as (uri, _),
        pytest.raises(Denied) as denied,
    ):
        RestServer(uri).call("GET", "runs/get")
    assert str(denied.value) == "GET /api/2.0/mlflow/runs/get: 403 you sent Bearer ***"


@pytest.fixture
def tls(tmp_path):
    """A server's TLS context, and the file of its authority's certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return context, str(tmp_path / "ca.pem")


def test_a_certificate_that_is_not_trusted_is_final_and_names_the_setting(tls):
    with serve(answer(200), context=tls[0]) as (uri, _), pytest.raises(Denied) as denied:
        RestServer(uri).call("GET", "runs/get")
    assert str(denied.value).startswith(
        f"GET /api/2.0/mlflow/runs/get: the certificate of {uri.removeprefix('https://')} is not "
        "trusted ("
    )
    assert denied.value.hint == (
        "set MLFLOW_TRACKING_SERVER_CERT_PATH to a file with the certificate of its authority"
    )


def test_a_certificate_of_ones_own_authority_is_trusted_where_the_setting_names_it(
    tls, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", tls[1])
    with serve(answer(200, b'{"a": 1}'), context=tls[0]) as (uri, _):
        assert RestServer(uri).call("GET", "x") == {"a": 1}
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", tls[1] + ".none")
    with pytest.raises(Denied, match=r"^could not read the certificate file .*ca\.pem\.none$"):
        RestServer(uri).call("GET", "x")


def test_a_byte_now_and_then_over_tls_does_not_hold_a_caller_either(tls, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", tls[1])
    closed = threading.Event()

    def drip(stream):
        while not closed.wait(0.05):
            stream.sendall(b"x")

    monkeypatch.setattr(web, "CALL_S", 1.0)
    with serve(drip, context=tls[0]) as (uri, _):
        with pytest.raises(Unavailable):
            RestServer(uri).call("GET", "runs/get")
        closed.set()


@pytest.mark.parametrize(("server", "location", "root"), [
    ("http://a:5000", "mlflow-artifacts:/0/r", "http://a:5000/api/2.0/mlflow-artifacts/artifacts/0/r"),
    ("https://a/mlflow", "mlflow-artifacts:/0/r", "https://a/mlflow/api/2.0/mlflow-artifacts/artifacts/0/r"),
    ("https://a/mlflow", "mlflow-artifacts://b:81/0/r", "https://b:81/mlflow/api/2.0/mlflow-artifacts/artifacts/0/r"),
    ("https://a", "https://store/x/", "https://store/x"),
])  # fmt: skip
def test_where_artifacts_lie_is_read_as_mlflow_reads_it(server, location, root):
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    assert artifact_root(server, location) == root
    if location.startswith("mlflow-artifacts"):
        assert MlflowArtifactsRepository.resolve_uri(location, server) == root
    else:
        assert HttpArtifactRepository(location).artifact_uri.rstrip("/") == root


def test_the_runner_has_the_packages_version():
    import importlib.metadata

    assert importlib.metadata.version("mlflow-compute") == mlflow_runner.VERSION


def test_a_broken_answer_is_an_outage():
    with (
        serve(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort") as (uri, _),
        pytest.raises(Unavailable),
    ):
        RestServer(uri).call("GET", "x")
    with (
        serve(b"SSH-2.0-x\r\n") as (uri, _),
        pytest.raises(Unavailable, match=http.client.BadStatusLine.__name__),
    ):
        RestServer(uri).call("GET", "x")
