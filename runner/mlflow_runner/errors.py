"""Failures that the runner explains: a stable cause and one sentence."""


class RunnerError(Exception):
    """`cause` is one of the documented words of the tag compute.cause; `str()` is the sentence."""

    def __init__(self, cause: str, message: str):
        super().__init__(message)
        self.cause = cause
