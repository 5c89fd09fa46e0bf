"""What an API server's answer means: whether to repeat the call, and the error in one line."""

import json
import re
from typing import Any

from mlflow_backend.errors import AlreadyExists, ClusterError, ClusterUnavailable

LONGEST_RETRY_AFTER_S = 60
"""A server that asks for more patience than this is unavailable."""
PASSING = (408, 410, 429)
"""Besides 5xx. 410: the list or watch has to begin again."""
CERTIFICATE = re.compile(r"certificate|unknown ca|hostname", re.I)


def repeat_after_s(error: Any, is_safe: bool) -> float | None:
    """In how many seconds the server (an ApiException) wants the call again; None if it does not
    say so.

    429 and 503 refuse a request before it is executed; other 5xx may come after that, so only calls
    that may be executed twice (`is_safe`) are repeated then. As client-go's rest.WithRetry, which
    needs Retry-After too.
    """
    refused = error.status in (429, 503)
    if not refused and not (is_safe and error.status >= 500):
        return None
    stamp = (error.headers or {}).get("Retry-After") or ""
    seconds = int(stamp) if re.fullmatch("[0-9]{1,9}", stamp) else None
    return seconds if seconds is not None and seconds <= LONGEST_RETRY_AFTER_S else None


def from_status(what: str, where: str, error: Any) -> ClusterError:
    """The ClusterError of an ApiException.

    `what` was tried ("list Pods"), `where` names context and namespace.
    """
    message = message_of(error)
    said = f"{where}: cannot {what}: "
    if error.status == 401:
        return ClusterError(f"{said}not logged in (401): renew the kubeconfig's credentials")
    if error.status == 403 and "is forbidden: User" in message:
        return ClusterError(
            f"{said}{message}: ask an administrator of the namespace for the Role "
            "mlflow-compute-submitter"
        )
    if error.status == 404 and "namespaces" in message:
        return ClusterError(
            f"{said}{message}: create the namespace or correct 'namespace' in the target"
        )
    if error.status == 409 and _field(error, "reason") == "AlreadyExists":
        return AlreadyExists(f"{said}{message}")
    if not error.status and CERTIFICATE.search(message):  # the library's sign of a failure in TLS
        return ClusterError(
            f"{said}{message}: check 'certificate-authority' and the client certificate in the "
            "kubeconfig"
        )
    if not error.status or error.status >= 500 or error.status in PASSING:
        return ClusterUnavailable(f"{said}{message}")
    return ClusterError(f"{said}{message}")


def from_transport(server: str, context: str, error: Exception) -> ClusterError:
    """The ClusterError of a urllib3 HTTPError: there was no answer."""
    from urllib3.exceptions import LocationValueError

    kind = ClusterError if isinstance(error, LocationValueError) else ClusterUnavailable
    inner = getattr(error, "reason", None) or error
    return kind(
        f"cluster {server} (context {context}) cannot be reached: {_cause(inner)}: check the "
        "address and VPN"
    )


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises ValueError where it is anything else, as a proxy's page is.
    """
    try:
        answer = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(answer, dict):
        raise ValueError("no object")
    return answer


def message_of(error: Any) -> str:
    """The server's own sentence, or the HTTP reason, for an ApiException."""
    message = _field(error, "message")
    if isinstance(message, str) and message.strip():
        return " ".join(message.split())
    lines = [line.strip() for line in str(error.reason or "").splitlines() if line.strip()]
    said = lines[-1] if lines else type(error).__name__
    return f"{said} ({error.status})" if error.status else said


def _field(error: Any, name: str) -> Any:
    try:
        return json.loads(error.body)[name]
    except (TypeError, ValueError, KeyError):
        return None


def _cause(error: Any) -> str:
    # urllib3's ("Connection aborted.", the reason)
    if isinstance(error.args[-1] if error.args else None, Exception):
        error = error.args[-1]
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[Errno \d+\] ", "", first.rpartition(": ")[2])
