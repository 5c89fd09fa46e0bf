"""Failures that the runner explains: a stable cause and one sentence."""


class RunnerError(Exception):
    """`cause` is one of the documented values of the tag compute.cause; `str()` is the sentence,
    without the credentials of a URL.
    """

    def __init__(self, cause: str, message: str) -> None:
        # imported here: a run without an error does not load it before its command
        from mlflow_runner.contract.redact import redact

        super().__init__(redact(message))
        self.cause = cause
