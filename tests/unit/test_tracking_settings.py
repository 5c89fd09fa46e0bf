"""What a client elsewhere is told of MLflow, and that no credential is among the open things."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from mlflow_backend.errors import TrackingError, TrackingUnavailable
from mlflow_backend.tracking import runs as mlflow_runs
from mlflow_backend.tracking.answers import one_line
from mlflow_backend.tracking.runs import check_artifact_root
from mlflow_backend.tracking.settings import Settings
from mlflow_backend.tracking.settings import collect as settings
from mlflow_backend.tracking.uris import make_absolute as uri_for_here
from mlflow_backend.tracking.uris import resolve_for_pods as uri_for_pods
from mlflow_backend.tracking.uris import run_url
from mlflow_runner.tracking import login
from tests.bed.odd import OddServer


def test_settings_of_a_client_travel_and_those_of_a_server_or_of_this_run_do_not(tmp_path):
    certificate = tmp_path / "ca.pem"
    certificate.write_text("cert")
    uri, found = settings(
        {
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "9",
            "MLFLOW_S3_ENDPOINT_URL": "http://s3",
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
            "MLFLOW_TRACKING_USERNAME": "ada",
            "MLFLOW_TRACKING_PASSWORD": "pw",
            "MLFLOW_TRACKING_TOKEN": "tok",
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate),
            "MLFLOW_TRACKING_INSECURE_TLS": "",
            "MLFLOW_BACKEND_STORE_URI": "postgresql://u:p@db",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "key",
            "MLFLOW_RUN_ID": "r",
            "MLFLOW_TRACKING_URI": "http://x",
            "AWS_SECRET_ACCESS_KEY": "aws",
        },
        "http://mlflow:5000",
    )
    assert uri == "http://mlflow:5000"
    assert found.plain == {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "9",
        "MLFLOW_S3_ENDPOINT_URL": "http://s3",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
    }
    assert found.secret == {
        "MLFLOW_TRACKING_USERNAME": "ada",
        "MLFLOW_TRACKING_PASSWORD": "pw",
        "MLFLOW_TRACKING_TOKEN": "tok",
    }
    assert found.files == {"MLFLOW_TRACKING_SERVER_CERT_PATH": b"cert"}


def test_credentials_in_the_tracking_uri_become_secret_settings():
    uri, found = settings({}, "https://ada:p%40w@mlflow.example.com/x")
    assert uri == "https://mlflow.example.com/x"
    assert found.secret == {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "p@w"}


def test_an_unreadable_certificate_is_named():
    with pytest.raises(
        TrackingError, match=r"MLFLOW_TRACKING_SERVER_CERT_PATH: /no/ca\.pem cannot be read"
    ):
        settings({"MLFLOW_TRACKING_SERVER_CERT_PATH": "/no/ca.pem"}, "http://x")


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////tmp/m.db",
        "file:///tmp/mlruns",
        "mlruns",
        "http://localhost:5000",
        "http://127.0.0.1",
        "http://[::1]:5000",
        "http://0.0.0.0:1",
    ],
)
def test_a_tracking_uri_that_a_pod_cannot_reach_is_refused_with_what_to_set(uri):
    with pytest.raises(TrackingError) as error:
        uri_for_pods(None, uri, "cpu", on_host_network=False)
    assert all(
        word in str(error.value) for word in (uri, "'cpu'", "MLFLOW_TRACKING_URI", "'tracking_uri'")
    )


def test_a_refusal_does_not_show_a_password():
    with pytest.raises(TrackingError) as error:
        uri_for_pods(None, "http://ada:hunter2@localhost:5000", "cpu", on_host_network=False)
    assert "hunter2" not in str(error.value)


def test_the_target_s_tracking_uri_goes_before_the_client_s():
    assert uri_for_pods("http://in:5000", "http://localhost:5000", "cpu", False) == "http://in:5000"
    assert (
        uri_for_pods(None, "https://mlflow.example.com", "cpu", False)
        == "https://mlflow.example.com"
    )
    assert uri_for_pods(None, "http://127.0.0.1:5000", "cpu", True) == "http://127.0.0.1:5000", (
        "a pod on the host's network"
    )


def test_a_relative_store_means_the_same_from_the_project_s_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert uri_for_here("sqlite:///m.db") == f"sqlite:///{tmp_path}/m.db"
    assert uri_for_here("sqlite:////abs/m.db") == "sqlite:////abs/m.db"
    assert uri_for_here("mlruns") == f"file://{tmp_path}/mlruns"
    assert uri_for_here("http://x") == "http://x"


def test_a_run_s_page_exists_only_where_a_server_shows_it():
    assert run_url("http://x/", "1", "r") == "http://x/#/experiments/1/runs/r"
    assert run_url("http://ada:secret@x", "1", "r") == "http://x/#/experiments/1/runs/r"
    assert run_url("sqlite:///m.db", "1", "r") is None


def test_a_setting_whose_value_holds_a_login_is_secret_whatever_its_name():
    environ = {
        "MLFLOW_REGISTRY_URI": "https://ada:regpw@reg",
        "MLFLOW_S3_ENDPOINT_URL": "https://k:s3pw@s3",
        "MLFLOW_TRACKING_TOKEN": "t",
    }
    assert settings(environ, "http://x")[1] == Settings({}, environ, {})


def test_a_login_that_mlflow_keeps_in_a_file_travels_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = ada\nmlflow_tracking_password = pw\n"
    )
    login = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "pw"}
    assert settings({}, "https://mlflow.example.com")[1].secret == login
    assert settings({"MLFLOW_TRACKING_TOKEN": "t"}, "https://mlflow.example.com")[1].secret == {
        "MLFLOW_TRACKING_TOKEN": "t"
    }
    assert settings({}, "databricks")[1].secret == {}


def test_a_netrc_login_travels_for_its_host_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine mlflow.example.com login ada password pw\n")
    assert settings({}, "https://mlflow.example.com")[1].secret == {
        "MLFLOW_TRACKING_USERNAME": "ada",
        "MLFLOW_TRACKING_PASSWORD": "pw",
    }
    assert settings({}, "https://other.example.com")[1].secret == {}


@pytest.mark.parametrize("uri", ["/tmp/x", "file:///tmp/x", "relative"])
def test_a_folder_is_no_place_for_the_artifacts_of_pods(uri):
    with pytest.raises(TrackingError, match=r"^experiment 7: stores artifacts in the folder"):
        check_artifact_root(uri, "7")


@pytest.mark.parametrize(
    "uri",
    [
        "mlflow-artifacts:/1",
        "s3://bucket/x",
        "gs://b",
        "wasbs://c@a.blob.core.windows.net/x",
        "dbfs:/x",
    ],
)
def test_a_store_that_pods_may_reach_is_accepted(uri):
    check_artifact_root(uri, "7")


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, b'{"message": "Forbidden"}', "TrackingDenied"),
        (403, b"<html>no</html>", "TrackingDenied"),
        (404, b'{"error": "no route"}', "TrackingRefused"),
        (404, b"nothing here", "TrackingRefused"),
        (401, b"{}", "TrackingDenied"),
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "x"}', "TrackingRefused"),
        (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "x"}', "NotFound"),
        (403, b'{"error_code": "A_NEW_ONE", "message": "x"}', "TrackingDenied"),
        (503, b'{"message": "Service Unavailable"}', "TrackingUnavailable"),
        (500, b'{"error_code": "INTERNAL_ERROR", "message": "x"}', "TrackingUnavailable"),
        (429, b'{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "x"}', "TrackingUnavailable"),
        (429, b"slow down", "TrackingUnavailable"),
        (200, b"<html>a login page</html>", "TrackingUnavailable"),
    ],
)
def test_an_answer_that_will_be_the_same_next_time_is_no_outage(status, body, code, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with OddServer(body, status) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        with pytest.raises(TrackingError) as error:
            mlflow_runs.get_run("r")
    assert error.value.code == code and "\n" not in str(error.value)
    assert isinstance(error.value, TrackingUnavailable) == (code == "TrackingUnavailable")


@pytest.mark.parametrize("value", ["s3cr3t\nx-token", "s3cr3t\rtoken"])
def test_a_login_that_no_request_can_carry_is_one_line_that_does_not_show_it(value, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", value)
    with OddServer(b"{}") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        with pytest.raises(TrackingError, match="MLFLOW_TRACKING_TOKEN contains a ") as error:
            mlflow_runs.get_run("r")
    assert type(error.value) is TrackingError
    assert "s3cr3t" not in str(error.value) and "\n" not in str(error.value)


def test_a_server_that_repeats_the_login_does_not_get_it_into_an_error(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cr3t-token")
    with OddServer(b'{"error_code": "BAD_REQUEST", "message": "no s3cr3t-token"}', 400) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        with pytest.raises(TrackingError) as error:
            mlflow_runs.get_run("r")
    assert str(error.value) == "run r: BAD_REQUEST: no ***"


def test_an_outage_stays_one_where_a_token_is_in_a_file_that_is_not_here(monkeypatch):
    """In a notebook outside of the cluster, for example."""
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "kubernetes")
    monkeypatch.setattr(login, "SERVICE_ACCOUNT", "/not/there")
    with pytest.raises(TrackingUnavailable), one_line("run r"):
        raise MlflowException("away", error_code=TEMPORARILY_UNAVAILABLE)
