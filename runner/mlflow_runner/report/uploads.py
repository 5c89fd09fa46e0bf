"""The thread that sends log and files: a store that is slow, away or refuses is its problem
alone.
"""

import threading
import time
from typing import Any, Callable, Dict

from mlflow_runner.contract.answers import NeedsMlflow
from mlflow_runner.report.channel import Channel
from mlflow_runner.report.log import Log

FLUSH_INTERVAL_S = 2.0
"""New output is collected for so long."""


class Uploads:
    """`on_pass` is called after each pass. `may_get_mlflow`: whether this process can go on as one
    that has MLflow's client.

    The public methods belong to the reporter's main thread and never wait.
    """

    def __init__(
        self,
        log: Log,
        files: Channel,
        on_pass: Callable[[], Any],
        may_get_mlflow: Callable[[], bool],
    ):
        self._log, self._channels = log, (log, files)
        self._on_pass = on_pass
        self._may_get_mlflow = may_get_mlflow
        self._run: Any = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._wanted = 0
        self._done: Dict[Channel, int] = {}
        self.needs_mlflow = False

    def start(self, connect: Callable[[], Any]) -> None:
        """Begin; `connect` gives the client for the artifacts."""
        self._connect = connect
        self._wake.set()
        threading.Thread(target=self._loop, daemon=True).start()

    def news(self) -> None:
        """There is new output."""
        self._wake.set()

    def close(self) -> None:
        """Nothing will follow but what `append` adds: send everything, at once."""
        self._wanted += 1
        for channel in self._channels:
            channel.backoff.hurry()
        self._closing.set()
        self._wake.set()

    def append(self, line: str) -> None:
        """A last line of the log, after `close`."""
        self._log.append(line)
        self._wanted += 1
        self._wake.set()

    def are_settled(self) -> bool:
        """After `close`: whether everything has arrived or been given up."""
        return all(self._is_settled(channel) for channel in self._channels)

    def log_is_settled(self) -> bool:
        """After `close`: whether the log has arrived, or is in trouble and not worth waiting
        for.
        """
        return self._is_settled(self._log) or not self._log.is_healthy

    def have_given_up(self) -> bool:
        """Whether a channel will never send what it has not sent."""
        return any(channel.given_up for channel in self._channels)

    def _is_settled(self, channel):
        return channel.given_up or self._done.get(channel) == self._wanted

    def _loop(self):
        while True:
            self._wake.wait(self._due_in_s())
            if not self._closing.is_set():
                self._closing.wait(FLUSH_INTERVAL_S)
            self._wake.clear()
            self._pass()
            self._on_pass()

    def _due_in_s(self):
        """Until the next try after a failure; None without one."""
        due = [
            channel.backoff.due_s
            for channel in self._channels
            if channel.backoff.failures and not channel.given_up
        ]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _pass(self):
        wanted, closing = self._wanted, self._closing.is_set()
        due = [
            channel
            for channel in self._channels
            if not channel.given_up and channel.backoff.due_s <= time.monotonic()
        ]
        try:
            self._run = self._run or self._connect()
            self.needs_mlflow = False
        except NeedsMlflow as error:
            self.needs_mlflow = True
            for channel in due:
                if closing and not self._may_get_mlflow():
                    channel.give_up(str(error))
                else:
                    channel.fail(error)
            return
        except Exception as error:  # of MLflow's client, which may be made for any store
            for channel in due:
                channel.fail(error)
            return
        for channel in due:
            if channel.attempt(self._run, closing):
                self._done[channel] = wanted
