"""What an API server's answer means: whether to repeat the call, and the error in one line."""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from mlflow_backend.errors import AlreadyExists, ClusterError, ClusterUnavailable

Object: TypeAlias = Mapping[str, Any]
"""An object of the API, as JSON."""
LONGEST_RETRY_AFTER_S = 60
"""A server that asks for a longer delay than this is unavailable."""
PASSING = (408, 410, 429)
"""Temporary statuses besides 5xx. 410: the list or watch has to start again."""
CERTIFICATE = re.compile(r"certificate|unknown ca|hostname", re.IGNORECASE)


def repeat_after_s(error: Any, is_safe: bool) -> float | None:
    """The delay in seconds that the server (an ApiException) asks for; None if it asks for none.

    429 and 503 reject a request before it is executed. Other 5xx may come after that, so only calls
    that may be executed twice (`is_safe`) are repeated then. As client-go's rest.WithRetry, which
    requires Retry-After too.
    """
    rejected = error.status in (429, 503)
    if not rejected and not (is_safe and error.status >= 500):
        return None
    stamp = (error.headers or {}).get("Retry-After") or ""
    seconds = int(stamp) if re.fullmatch("[0-9]{1,9}", stamp) else None
    return seconds if seconds is not None and seconds <= LONGEST_RETRY_AFTER_S else None


def from_status(what: str, where: str, error: Any) -> ClusterError:
    """The ClusterError of an ApiException.

    `what` is the call ("list Pods"), `where` names context and namespace.
    """
    message = message_of(error)
    sentence = f"{where}: cannot {what}: {message}"
    if error.status == 401:
        return ClusterError(
            f"{where}: cannot {what}: not logged in (401)",
            code="LoginFailed",
            hint="renew the kubeconfig's credentials",
        )
    if error.status == 403 and "is forbidden: User" in message:
        return ClusterError(
            sentence,
            code="ClusterForbidden",
            hint="ask an administrator of the namespace for the Role mlflow-compute-submitter",
        )
    if error.status == 404 and "namespaces" in message:
        return ClusterError(
            sentence,
            code="NotFound",
            hint="create the namespace or correct 'namespace' in the target",
        )
    if error.status == 409 and _field(error, "reason") == "AlreadyExists":
        return AlreadyExists(sentence)
    if not error.status and CERTIFICATE.search(message):  # the library's sign of a failure in TLS
        return ClusterError(
            sentence,
            code="InvalidKubeconfig",
            hint="check 'certificate-authority' and the client certificate in the kubeconfig",
        )
    if not error.status or error.status >= 500 or error.status in PASSING:
        return ClusterUnavailable(sentence)
    return ClusterError(sentence)


def from_transport(server: str, context: str, error: Exception) -> ClusterError:
    """The ClusterError of a urllib3 HTTPError: there was no answer."""
    from urllib3.exceptions import LocationValueError

    cause = _cause(getattr(error, "reason", None) or error)
    message = f"cluster {server} (context {context}) cannot be reached: {cause}"
    if isinstance(error, LocationValueError):
        return ClusterError(
            message, code="InvalidKubeconfig", hint="correct the address in the kubeconfig"
        )
    return ClusterUnavailable(message, hint="check the address and VPN")


def parse(body: bytes | str) -> dict[str, Any] | None:
    """The JSON object of an answer or of a line; None for anything else, as a proxy's page is."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def message_of(error: Any) -> str:
    """The server's own sentence, or the HTTP reason, for an ApiException."""
    message = _field(error, "message")
    if isinstance(message, str) and message.strip():
        return " ".join(message.split())
    lines = [line.strip() for line in str(error.reason or "").splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return f"{reason} ({error.status})" if error.status else reason


def _field(error: Any, name: str) -> Any:
    return (parse(error.body or "") or {}).get(name)


def _cause(error: Exception) -> str:
    """The innermost reason: urllib3's is ("Connection aborted.", reason)."""
    if isinstance(error.args[-1] if error.args else None, Exception):
        error = error.args[-1]
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[Errno \d+\] ", "", first.rpartition(": ")[2])
