"""Run commands as an init process does: spool their output, forward signals, reap orphans.

Nothing here waits for the tracking server or for the reader of the runner's own output (see
`log.output`).
"""

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import time
from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from mlflow_runner.log.output import READ_BYTES, Output

if TYPE_CHECKING:
    from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT)
AFTER_STOP_S = 2.0
"""How long a stopped run may report its end after the grace period.

The pod is killed `REPORT_S` (`mlflow_backend.places.kubernetes.objects.manifest`) after that
period, which discards its exit code and termination message; a last call takes 2 s.
"""


class Exit(NamedTuple):
    """How a command ended: its exit code as in a shell (128 + signal), and the signal if any."""

    code: int
    signal: Optional[int]


class Supervisor:
    """Runs one command at a time and records whether the run has been asked to stop.

    A SIGTERM or SIGINT goes to the command's whole process group; processes that are left after
    `grace_period_s` get SIGKILL. `signals` counts signals at any time, `stopped_by` is the first.
    """

    def __init__(self, output: Output, grace_period_s: float) -> None:
        self._output = output
        self._grace_period_s = grace_period_s
        self._group: Optional[int] = None
        self._listen: Callable[[bytes], bytes] = bytes
        self._kill_at: Optional[float] = None
        self._adopted: Dict[int, Tuple[subprocess.Popen[bytes], Callable[[int], None]]] = {}
        self.stopped_by: Optional[int] = None
        self.signals = 0
        self._wakeup, wakeup_write = os.pipe()
        for fd in (self._wakeup, wakeup_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        for number in STOPS:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # delivers signals that `__main__` has blocked until now
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def _on_stop(self, number: int, _frame: "Optional[FrameType]") -> None:
        self.signals += 1
        self.stop(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask the running command, and every later one, to end."""
        if self.stopped_by is None:
            self.stopped_by = number
            self._kill_at = time.monotonic() + self._grace_period_s
        _signal_group(self._group, number)

    def adopt(self, process: "subprocess.Popen[bytes]", on_exit: Callable[[int], None]) -> None:
        """Reap `process` too, which is not the command, and pass its exit code (negative: a signal)
        to `on_exit`.

        Keeps a reference: `subprocess` reaps a dropped Popen when it creates the next, and the exit
        code is lost.
        """
        self._adopted[process.pid] = (process, on_exit)

    def run(
        self,
        argv: List[str],
        cwd: str,
        env: Mapping[str, str],
        on_start: Callable[[], None] = lambda: None,
        listen: Callable[[bytes], bytes] = lambda data: data,
        pass_fds: Sequence[int] = (),
    ) -> Exit:
        """Run `argv` to its end; `on_start` is called once it has started.

        `listen` receives each piece of its output and returns the bytes to log.

        Raises OSError when the command cannot be started.
        """
        read_fd, write_fd = os.pipe()
        _enlarge(read_fd)
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=write_fd,
                stderr=write_fd,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        self._group = process.pid
        self._listen = listen
        if self.stopped_by is not None:
            _signal_group(self._group, self.stopped_by)
        try:
            on_start()
            return self._pump(process, read_fd)
        finally:
            os.close(read_fd)
            _signal_group(self._group, signal.SIGTERM)  # processes that the command left behind
            self._group = None

    def wait_until(self, done: Callable[[], bool], timeout_s: float, stops: bool = False) -> None:
        """Reap until `done()` or for `timeout_s` seconds; with `stops`, no longer than a stopped
        run may take.
        """
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            self._reap(None)
            while not done():
                until = deadline
                if stops and self._kill_at is not None:
                    until = min(deadline, self._kill_at + AFTER_STOP_S)
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return
                if selector.select(left_s):
                    os.read(self._wakeup, 4096)
                self._reap(None)

    def _pump(self, process: "subprocess.Popen[bytes]", read_fd: int) -> Exit:
        """Copy the command's output until it has exited."""
        os.set_blocking(read_fd, False)
        with selectors.DefaultSelector() as selector:
            selector.register(read_fd, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            status, reading = None, True
            while status is None:
                for key, _ in selector.select(self._kill_delay()):
                    if key.fd == self._wakeup:
                        os.read(self._wakeup, 4096)
                    elif not self._read(read_fd):
                        selector.unregister(read_fd)
                        reading = False
                self._kill_if_due()
                status = self._reap(process.pid)
            while reading and self._read(read_fd, available_only=True):
                pass
        process.returncode = os.waitstatus_to_exitcode(status)
        if os.WIFSIGNALED(status):
            return Exit(128 + os.WTERMSIG(status), os.WTERMSIG(status))
        return Exit(os.WEXITSTATUS(status), None)

    def _read(self, fd: int, available_only: bool = False) -> bool:
        """Move one block to the output.

        False at the end of the stream, or with `available_only` when no bytes are available.
        """
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return not available_only
        self._output.write(self._listen(data))
        return bool(data)

    def _kill_delay(self) -> Optional[float]:
        return None if self._kill_at is None else max(0.05, self._kill_at - time.monotonic())

    def _kill_if_due(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            _signal_group(self._group, signal.SIGKILL)

    def _reap(self, pid: Optional[int]) -> Optional[int]:
        """Reap every ended child, adopted orphans of PID 1 included; the wait status of `pid` if it
        is one of them.
        """
        ended = None
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if child == 0:
                return ended
            if child == pid:
                ended = status
            elif child in self._adopted:
                process, on_exit = self._adopted.pop(child)
                process.returncode = os.waitstatus_to_exitcode(status)
                on_exit(process.returncode)


def _signal_group(group: Optional[int], number: int) -> None:
    if group is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _enlarge(fd: int) -> None:
    """Set the pipe's size to 1 MiB instead of 64 KiB where the kernel allows it (F_SETPIPE_SZ,
    Linux).
    """
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), READ_BYTES)
