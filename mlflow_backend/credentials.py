"""What counts as a credential: the names of variables, and URIs with a login or a token in them."""

import re

from mlflow_backend.errors import redact

NAME = re.compile(
    r"(^|_)(USERNAME|PASSWORD|PASSWD|PASS|TOKEN|SECRET|CREDENTIALS?|(API|ACCESS|ACCOUNT|SECRET|PRIVATE|STORAGE|SAS)_?KEY(_ID)?|APIKEY|AUTHORIZATION)(_|$)",
    re.I,
)
PROVIDER = re.compile(
    r"(MLFLOW|AWS|AZURE|GOOGLE|GCP|GCLOUD|DATABRICKS|HF|HUGGING_FACE|WANDB|OPENAI|ANTHROPIC|GITHUB|GITLAB|SNOWFLAKE)_",
    re.I,
)
"""Variables of services that mean a login more often than not."""


def is_credential_name(name: str) -> bool:
    """Whether a variable of this name holds a credential."""
    return bool(NAME.search(name))


def may_be_credential(name: str) -> bool:
    """Whether a variable that a project asks for by this name is withheld unless its user allows
    it.
    """
    return is_credential_name(name) or bool(PROVIDER.match(name))


def has_credential(text: str) -> bool:
    """Whether the text holds a URI with a login or a token."""
    return redact(text) != text
