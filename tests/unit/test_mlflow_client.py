"""Calls through MLflow's own client: bounded, with translated errors, and without the login for
servers other than the tracking server.
"""

import errno
import threading

import pytest
from requests import HTTPError, Response

from mlflow_runner.contract.answers import Denied, Missing, Refused, TooLarge, Unavailable
from mlflow_runner.tracking.client import ClientRun, _call_mlflow, import_mlflow


def of_requests(status):
    response = Response()
    response.status_code = status
    return HTTPError("no", response=response)


class OfBotocore(Exception):
    """botocore's ClientError, which has the HTTP status in a dict."""

    def __init__(self, status):
        super().__init__("no")
        self.response = {
            "Error": {"Code": "AccessDenied"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }


@pytest.mark.parametrize(("error", "kind"), [
    (OfBotocore(403), Denied), (OfBotocore(500), Unavailable),
    (of_requests(403), Denied), (of_requests(404), Missing), (of_requests(413), TooLarge), (of_requests(405), Refused),
    (of_requests(429), Unavailable), (of_requests(503), Unavailable),
    (OSError(errno.EROFS, "read-only"), Denied), (PermissionError("no"), Denied), (ConnectionError("away"), Unavailable), (KeyError("x"), Unavailable),
])  # fmt: skip
def test_what_an_exception_of_a_stores_own_library_means(error, kind):
    def fail():
        raise error

    with pytest.raises((Refused, Unavailable)) as raised:
        _call_mlflow(fail)
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    "location", ["mlflow-artifacts://evil/x", "https://evil/x", "http://evil/x"]
)
def test_a_location_on_another_web_server_gets_no_upload_with_the_login(tmp_path, location):
    run = ClientRun("https://tracking", "r", location)
    with pytest.raises(Denied) as denied:
        run.upload("logs/a", b"x")
    assert str(denied.value) == (
        "the artifact location is on evil, which is not the tracking server and does not receive "
        "its login"
    )


def test_a_call_without_an_answer_is_left_alone_and_no_other_overtakes_it(tmp_path):
    run, answered, calls = ClientRun(f"sqlite:///{tmp_path}/mlflow.db", "r"), threading.Event(), []
    with pytest.raises(Unavailable, match=r"^no answer within 0 s$"):
        run._call(answered.wait, limit_s=0.05)
    with pytest.raises(Unavailable, match=r"^an earlier call has not been answered yet$"):
        run._call(calls.append, "overtakes")
    answered.set()
    run._unanswered.join(10)
    run._call(calls.append, "follows")
    assert calls == ["follows"]


def test_mlflow_is_found_where_it_is_installed():
    assert import_mlflow().__name__ == "mlflow"
