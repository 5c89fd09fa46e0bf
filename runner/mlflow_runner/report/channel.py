"""What the channels of artifacts have in common: what is tried again, what is dropped, when a
channel gives up.
"""

import time
from typing import Callable, Optional

from mlflow_runner.contract.answers import Denied, Refused, Unavailable
from mlflow_runner.report.backoff import Backoff
from mlflow_runner.report.progress import Progress

REFUSALS = 3
"""After so many refusals in a row the channel gives up: every further artifact would meet the same.
"""


class Channel:
    """One kind of artifacts.

    `name` is what messages call it; `why` is the last reason for something that is missing.
    """

    name = ""

    def __init__(self, progress: Progress, say: Callable[[str], None]):
        self.backoff = Backoff()
        self._progress = progress
        self._say = say
        self._refusals = 0
        self.given_up: bool = progress.get("given_up", False)
        self._why: Optional[str] = progress.get("why", None)

    def send(self, run, closing: bool) -> None:
        """Upload all that is new to `run`; `closing`: nothing will follow.

        Raises Unavailable or Refused.
        """
        raise NotImplementedError

    def drop(self, error: Refused) -> bool:
        """Go past what the server refused; False when it can be sent in another way."""
        raise NotImplementedError

    def missing(self) -> Optional[str]:
        """What has not arrived and why, for a tag; None when all has."""
        raise NotImplementedError

    @property
    def is_healthy(self) -> bool:
        return not self.given_up and self.backoff.failures == 0

    def attempt(self, run, closing: bool) -> bool:
        """Send what is due, and keep count of what that led to; True when all of it has arrived.

        Never raises.
        """
        while not self.given_up:
            try:
                self.send(run, closing)
            except Denied as error:
                self._refused(error)
                self.backoff.fail(time.monotonic())
                return False
            except Refused as error:
                if self.drop(error):
                    self._refused(error)
            except Exception as error:
                # a defect of ours or of a store's library must not end the other channels
                self.fail(error)
                return False
            else:
                self._succeeded()
                return True
        return False

    def fail(self, error: Exception) -> None:
        """Try again later."""
        self._why = (
            str(error) if isinstance(error, Unavailable) else (f"{type(error).__name__}: {error}")
        )
        self.backoff.fail(time.monotonic())
        if self.backoff.failures == 1:
            self._say(f"{self.name} cannot be uploaded now, retrying: {self._why}")

    def give_up(self, why: str) -> None:
        """Try no more in this process."""
        self.given_up, self._why = True, why
        self._say(f"{self.name} cannot be kept with the run: {why}")

    def _refused(self, error: Exception) -> None:
        self._why = str(error)
        self._refusals += 1
        if self._refusals >= REFUSALS:
            self.give_up(str(error))
        self._progress.set(given_up=self.given_up, why=self._why)

    def _succeeded(self) -> None:
        if self.backoff.failures:
            self._say(f"{self.name} can be uploaded again")
        self.backoff.succeed()
        self._refusals = 0
