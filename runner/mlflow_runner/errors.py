"""Failures that the runner explains: a stable cause and one sentence."""

from mlflow_runner.redact import redact


class RunnerError(Exception):
    """`cause` is one of the documented words of the tag compute.cause; `str()` is the sentence, without the credentials of a URL in it."""

    def __init__(self, cause: str, message: str):
        super().__init__(redact(message))
        self.cause = cause
