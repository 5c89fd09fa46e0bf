"""Which variables and URIs hold credentials."""

import re

from mlflow_backend.errors import redact

NAME = re.compile(
    r"(^|_)(USERNAME|PASSWORD|PASSWD|PASS|TOKEN|SECRET|CREDENTIALS?|(API|ACCESS|ACCOUNT|SECRET|PRIVATE|STORAGE|SAS)_?KEY(_ID)?|APIKEY|AUTHORIZATION)(_|$)",
    re.IGNORECASE,
)
PROVIDER = re.compile(
    r"(MLFLOW|AWS|AZURE|GOOGLE|GCP|GCLOUD|DATABRICKS|HF|HUGGING_FACE|WANDB|OPENAI|ANTHROPIC|GITHUB|GITLAB|SNOWFLAKE)_",
    re.IGNORECASE,
)
"""Variables of services, most of which are part of a login."""


def is_credential_name(name: str) -> bool:
    """Whether a variable of this name holds a credential."""
    return bool(NAME.search(name))


def may_be_credential(name: str) -> bool:
    """Whether a project gets its user's variable of this name only if the user allows it."""
    return is_credential_name(name) or bool(PROVIDER.match(name))


def has_credential(text: str) -> bool:
    """Whether the text contains a URI with a login or a token."""
    return redact(text) != text
