"""The rules that all channels for artifacts share: what to retry, what to skip, when to give up."""

import time
from typing import TYPE_CHECKING, Callable, Optional

from mlflow_runner.contract.answers import Denied, NeedsMlflow, Refused, Unavailable
from mlflow_runner.report.backoff import Backoff
from mlflow_runner.report.progress import Progress

if TYPE_CHECKING:
    from mlflow_runner.tracking import RunClient

MAX_REFUSALS = 3
"""The channel gives up after so many refusals in a row: the server refuses further artifacts too.
"""


class Channel:
    """One kind of artifacts; `name` is its name in messages."""

    name = ""

    def __init__(self, progress: Progress, say: Callable[[str], None]) -> None:
        self.backoff = Backoff()
        self._progress = progress
        self._say = say
        self._refusals = 0
        self.given_up: bool = progress.get("given_up", False)
        self._why: Optional[str] = progress.get("why", None)

    def send(self, run: "RunClient", closing: bool) -> None:
        """Upload everything new to `run`; `closing`: nothing follows.

        Raises Unavailable or Refused.
        """
        raise NotImplementedError

    def drop(self, error: Refused) -> bool:
        """Skip what the server refused; False if the channel can send it in another way."""
        raise NotImplementedError

    def missing(self) -> Optional[str]:
        """What has not arrived and why, for a tag; None if everything has."""
        raise NotImplementedError

    @property
    def is_healthy(self) -> bool:
        """Whether the last upload succeeded, or none has been tried."""
        return not self.given_up and self.backoff.failures == 0

    def attempt(self, run: "RunClient", closing: bool) -> bool:
        """Send what is due and count failures; True if all of it has arrived.

        Never raises.
        """
        while not self.given_up:
            try:
                self.send(run, closing)
            except Denied as error:
                self._count_refusal(error)
                self.backoff.fail(time.monotonic())
                return False
            except Refused as error:
                if self.drop(error):
                    self._count_refusal(error)
            except Exception as error:
                # a defect here or in a store's library must not end the other channels
                self.fail(error)
                return False
            else:
                self._succeed()
                return True
        return False

    def fail(self, error: Exception) -> None:
        """Retry later."""
        is_ours = isinstance(error, (Unavailable, NeedsMlflow))
        self._why = str(error) if is_ours else f"{type(error).__name__}: {error}"
        self.backoff.fail(time.monotonic())
        if self.backoff.failures == 1:
            self._say(f"could not upload {self.name}, retrying: {self._why}")

    def give_up(self, why: str) -> None:
        """Send nothing more from this process."""
        self.given_up, self._why = True, why
        self._say(f"could not upload {self.name}, giving up: {why}")

    def _count_refusal(self, error: Refused) -> None:
        self._why = str(error)
        self._refusals += 1
        if self._refusals >= MAX_REFUSALS:
            self.give_up(str(error))
        self._progress.set(given_up=self.given_up, why=self._why)

    def _succeed(self) -> None:
        if self.backoff.failures:
            self._say(f"resumed the upload of {self.name}")
        self.backoff.succeed()
        self._refusals = 0
