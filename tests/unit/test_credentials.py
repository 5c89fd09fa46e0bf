"""What is withheld from a project that asks for it by name, and what is only passed on in the run's
Secret.
"""

import pytest

from mlflow_backend.credentials import has_credential, is_credential_name, may_be_credential


@pytest.mark.parametrize(
    "name",
    ["MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "DB_PASS", "HF_TOKEN", "API_KEY", "apikey", "STORAGE_KEY",
     "GOOGLE_APPLICATION_CREDENTIALS", "PGPASSWORD_FILE_SECRET", "MY_SECRET"],
)  # fmt: skip
def test_names_of_credentials(name):
    assert is_credential_name(name) and may_be_credential(name)


@pytest.mark.parametrize("name", ["AWS_REGION", "AZURE_TENANT_ID", "MLFLOW_S3_ENDPOINT_URL"])
def test_names_of_services_are_withheld_and_are_no_secret_by_themselves(name):
    assert may_be_credential(name) and not is_credential_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "LANG",
        "KEYBOARD",
        "MONKEY",
        "TOKENIZERS_PARALLELISM",
        "COMPASS",
        "BYPASS",
        "PASSENGERS",
    ],
)
def test_names_that_only_look_alike(name):
    assert not may_be_credential(name)


def test_a_uri_with_a_login_is_a_credential():
    assert has_credential("see https://ada:pw@host/x") and not has_credential("see https://host/x")
