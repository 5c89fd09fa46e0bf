"""`MLFLOW_COMPUTE_DEBUG=1` shows what the client does, without credentials."""

import logging

import pytest

from mlflow_backend import debug
from mlflow_backend.errors import ConfigError, raise_as_mlflow


@pytest.fixture
def logger():
    logger = logging.getLogger(debug.LOGGER)
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers, logger.level = handlers, level


def test_nothing_is_shown_without_the_variable(logger, capsys):
    for value in ("", "0"):
        debug.show_if_asked({debug.VARIABLE: value})
    logger.getChild("x").debug("hidden")
    assert capsys.readouterr().err == ""


def test_what_is_logged_is_shown_once_and_without_credentials(logger, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cr3t-token")
    for _ in range(2):
        debug.show_if_asked({debug.VARIABLE: "1"})
    logger.getChild("a.b").debug("GET https://ada:s3cr3t@host/x, Bearer s3cr3t-token\x1b[2J")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("mlflow_backend.a.b: GET https://host/x, Bearer ***\\x1b[2J")


def test_an_error_that_a_user_sees_as_one_line_has_its_traceback_here(logger, capsys):
    debug.show_if_asked({debug.VARIABLE: "1"})
    with pytest.raises(Exception, match="no target"), raise_as_mlflow():
        raise ConfigError("no target")
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown and "ConfigError: no target" in shown
