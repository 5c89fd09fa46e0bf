"""The thread that sends log and files, so that a slow, unreachable or refusing store delays nothing
else.
"""

import threading
import time
from typing import TYPE_CHECKING, Callable, Dict, Optional

from mlflow_runner.contract.answers import NeedsMlflow
from mlflow_runner.report.channel import Channel
from mlflow_runner.report.log import Log

if TYPE_CHECKING:
    from mlflow_runner.tracking import RunClient

FLUSH_INTERVAL_S = 2.0
"""How long new output is collected before it is sent."""


class Uploads:
    """`on_pass` is called after each pass.

    `may_get_mlflow` says whether this process can restart under a Python that has mlflow. The
    public methods belong to the reporter's main thread and never wait.
    """

    def __init__(
        self,
        log: Log,
        files: Channel,
        on_pass: Callable[[], object],
        may_get_mlflow: Callable[[], bool],
    ) -> None:
        self._log, self._channels = log, (log, files)
        self._on_pass = on_pass
        self._may_get_mlflow = may_get_mlflow
        self._run: Optional["RunClient"] = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._wanted = 0
        self._done: Dict[Channel, int] = {}
        self.needs_mlflow = False

    def start(self, connect: Callable[[], "RunClient"]) -> None:
        """Start the thread; `connect` returns the client for the artifacts."""
        self._wake.set()
        threading.Thread(target=self._loop, args=(connect,), daemon=True).start()

    def news(self) -> None:
        """Send new output soon."""
        self._wake.set()

    def close(self) -> None:
        """Send everything at once: nothing follows but what `append` adds."""
        self._wanted += 1
        for channel in self._channels:
            channel.backoff.hurry()
        self._closing.set()
        self._wake.set()

    def append(self, line: str) -> None:
        """Add a last line to the log, after `close`."""
        self._log.append(line)
        self._wanted += 1
        self._wake.set()

    def are_settled(self) -> bool:
        """After `close`: whether everything has arrived or was given up."""
        return all(self._is_settled(channel) for channel in self._channels)

    def log_is_settled(self) -> bool:
        """After `close`: whether the log has arrived, or fails and is not worth waiting for."""
        return self._is_settled(self._log) or not self._log.is_healthy

    def have_given_up(self) -> bool:
        """Whether a channel has given up."""
        return any(channel.given_up for channel in self._channels)

    def _is_settled(self, channel: Channel) -> bool:
        return channel.given_up or self._done.get(channel) == self._wanted

    def _loop(self, connect: Callable[[], "RunClient"]) -> None:
        while True:
            self._wake.wait(self._due_in_s())
            if not self._closing.is_set():
                self._closing.wait(FLUSH_INTERVAL_S)
            self._wake.clear()
            self._pass(connect)
            self._on_pass()

    def _due_in_s(self) -> Optional[float]:
        """The time until the next retry; None if no upload has failed."""
        due = [
            channel.backoff.due_s
            for channel in self._channels
            if channel.backoff.failures and not channel.given_up
        ]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _pass(self, connect: Callable[[], "RunClient"]) -> None:
        wanted, closing = self._wanted, self._closing.is_set()
        due = [
            channel
            for channel in self._channels
            if not channel.given_up and channel.backoff.due_s <= time.monotonic()
        ]
        try:
            self._run = self._run or connect()
            self.needs_mlflow = False
        except NeedsMlflow as error:
            self.needs_mlflow = True
            for channel in due:
                if closing and not self._may_get_mlflow():
                    channel.give_up(str(error))
                else:
                    channel.fail(error)
            return
        except Exception as error:  # MLflow's client raises errors of any store
            for channel in due:
                channel.fail(error)
            return
        for channel in due:
            if channel.attempt(self._run, closing):
                self._done[channel] = wanted
