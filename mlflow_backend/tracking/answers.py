"""Errors of MLflow's client as TrackingErrors of one line, outages apart from the rest."""

import contextlib
import logging
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow_backend.errors import TrackingError, TrackingUnavailable
from mlflow_backend.explanations import Code
from mlflow_runner.contract.answers import (
    CODES,
    DENIED_STATUS,
    Denied,
    Missing,
    Refused,
    Unavailable,
    is_transient_status,
)
from mlflow_runner.tracking import login

log = logging.getLogger(__name__)

ERROR_CODES: Mapping[type[Exception], Code] = {Denied: "TrackingDenied", Missing: "NotFound"}


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn an error of MLflow's client into a TrackingError of one line that begins with `what`; an
    outage is a TrackingUnavailable.
    """
    from mlflow import get_tracking_uri
    from mlflow.exceptions import MlflowException

    began_s = time.monotonic()
    try:
        yield
        took_ms = (time.monotonic() - began_s) * 1000
        log.debug("a call to MLflow took %.0f ms; its failure would say: %s", took_ms, what)
    except MlflowException as error:
        log.debug("MLflow: %s", login.hide(str(error)), exc_info=True)
        if denied := _unusable_login():
            raise TrackingError(
                f"{what}: {denied}", code="TrackingDenied", hint=denied.hint
            ) from None
        if reason := _outage(error):
            raise TrackingUnavailable(
                f"{what}: tracking server {get_tracking_uri()} cannot be reached: {reason}",
                hint="check MLFLOW_TRACKING_URI",
            ) from None
        message = login.hide(f"{what}: {str(error).splitlines()[0]}")
        meaning = _meaning(error)
        if meaning is Unavailable:
            raise TrackingUnavailable(message) from None
        raise TrackingError(message, code=ERROR_CODES.get(meaning)) from None


def _unusable_login() -> Denied | None:
    """Why the login in the variables cannot be sent to any server; its text shows no value."""
    try:
        login.authorization()
    except Denied as error:
        return error
    except OSError:  # a token in a file, which MLflow's client may not use
        return None
    return None


def _meaning(error: Any) -> type[Exception]:
    """The class in `contract.answers` of an MlflowException.

    The HTTP status decides for a response that is not MLflow's own (a proxy's, which may be JSON
    too).
    """
    body = getattr(error, "json", None)
    is_mlflows = isinstance(body, Mapping) and body.get("error_code") == error.error_code
    status = None if is_mlflows else _status(error)
    if status is None:
        return CODES.get(error.error_code, Refused)
    if is_transient_status(status):
        return Unavailable
    return Denied if status in DENIED_STATUS else Refused


def _status(error: BaseException) -> int | None:
    """The HTTP status of the response for which MLflow's client raised the error, which does not
    contain it.
    """
    from requests import Response

    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(response := frame.f_locals.get("response"), Response):
            return response.status_code
    return None


def _outage(error: BaseException | None) -> str | None:
    """The operating system's reason why the server could not be reached; None if it answered."""
    from requests import RequestException

    while error is not None and not isinstance(error, RequestException):
        error = error.__context__
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, RequestException):
            return error.strerror or str(error)
        error = error.__context__
    return None
