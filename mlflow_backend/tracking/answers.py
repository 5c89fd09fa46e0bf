"""What MLflow's client raises, as one line that says whether repeating the call can help."""

import contextlib
import logging
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow_backend.errors import TrackingError, TrackingUnavailable
from mlflow_runner.contract.answers import CODES, Denied, Unavailable, is_transient_status
from mlflow_runner.tracking import login

log = logging.getLogger(__name__)


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn what MLflow's client raises into a TrackingError of one line that begins with `what`; an
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
        if refused := _unusable_login():
            raise TrackingError(f"{what}: {refused}") from None
        outage = _outage(error)
        if outage:
            where = f"tracking server {get_tracking_uri()} cannot be reached"
            raise TrackingUnavailable(
                f"{what}: {where}: {outage}: check MLFLOW_TRACKING_URI"
            ) from None
        kind = TrackingUnavailable if _is_transient(error) else TrackingError
        raise kind(login.hide(f"{what}: {str(error).splitlines()[0]}")) from None


def _unusable_login() -> str | None:
    """Why no server can be given the login in the variables, which no text may repeat."""
    try:
        login.authorization()
    except Denied as error:
        return f"{error}: {error.hint}"
    except OSError:  # a token in a file, which MLflow's client may not even use: no verdict on this
        return None
    return None


def _is_transient(error: Any) -> bool:
    """Of an answer that is not MLflow's own (a proxy's, which may be JSON too), the HTTP status
    says it.
    """
    told = getattr(error, "json", None)
    is_mlflows = isinstance(told, Mapping) and told.get("error_code") == error.error_code
    status = None if is_mlflows else _status(error)
    if status is not None:
        return is_transient_status(status)
    return CODES.get(error.error_code) is Unavailable


def _status(error: BaseException) -> int | None:
    """The HTTP status of the answer that MLflow's client raised the error for: the error itself
    does not hold it.
    """
    from requests import Response

    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(response := frame.f_locals.get("response"), Response):
            return response.status_code
    return None


def _outage(error: BaseException | None) -> str | None:
    """What the operating system says of a server that could not be reached; None where the server
    answered.
    """
    from requests import RequestException

    while error is not None and not isinstance(error, RequestException):
        error = error.__context__
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, RequestException):
            return error.strerror or str(error)
        error = error.__context__
    return None
