"""The backend_config of a run: what is accepted, and what one line says about the rest."""

import pytest

from mlflow_backend.errors import ConfigError
from mlflow_backend.request.backend_config import parse

OF_MLFLOW = {
    "ENV_MANAGER": None,
    "SYNCHRONOUS": False,
    "DOCKER_ARGS": {},
    "STORAGE_DIR": None,
    "build_image": False,
    "docker_auth": None,
}


def test_without_compute_a_run_is_local_and_builds_its_environment():
    config = parse(dict(OF_MLFLOW))
    assert config.is_local and config.builds_environment and config.STREAM_OUTPUT


@pytest.mark.parametrize("name", ["local", "LOCAL", ""])
def test_local_in_every_spelling_is_this_machine(name):
    assert parse({"COMPUTE": name}).is_local


@pytest.mark.parametrize(
    ("text", "value"),
    [("True", True), ("true", True), ("False", False), (True, True), (False, False)],
)
def test_booleans_may_be_written_as_strings(text, value):
    config = parse({"USE_CONDA": text, "STREAM_OUTPUT": text})
    assert config.USE_CONDA is value and config.STREAM_OUTPUT is value


@pytest.mark.parametrize(
    ("manager", "builds"), [("local", False), ("uv", True), ("conda", True), ("virtualenv", True)]
)
def test_an_explicit_env_manager_wins_over_use_conda(manager, builds):
    for use_conda in (True, False):
        assert parse({"USE_CONDA": use_conda, "ENV_MANAGER": manager}).builds_environment is builds


def test_fields_of_a_target_are_overrides():
    config = parse({"COMPUTE": "gpu", "resources": {"gpu": 2}, "image": "x"})
    assert config.overrides == {"resources": {"gpu": 2}, "image": "x"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"COMPUTE": 3}, ["backend_config COMPUTE", "string", "3"]),
        ({"COMPUTE": "x", "imgae": "y"}, ["backend_config", "'imgae'", "did you mean 'image'?"]),
        ({"compute": "x"}, ["unknown key 'compute'", "did you mean 'COMPUTE'?"]),
        ({"USE_CONDA": "maybe"}, ["USE_CONDA", "true or false"]),
        ({"image": "y"}, ["'image'", "COMPUTE"]),
        ("dev-cluster", ["JSON object", "dev-cluster"]),
    ],
)
def test_a_wrong_entry_is_named_in_one_line(config, words):
    with pytest.raises(ConfigError) as error:
        parse(config)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
