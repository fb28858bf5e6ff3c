"""A back-end's life: started, connected, started again when it ends, and ended with its VM."""

from __future__ import annotations

import os
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress

from vmtui.vmm.confine.backend import Started
from vmtui.vmm.loop import Loop

FIRST_DELAY_S, MAX_DELAY_S = 0.1, 10.0  # before a restart, doubled each time
LONG_LIFE_S = 60.0  # after which it starts over with the first
END_S = 2.0  # to finish its requests and close its files


class BackEnd(ABC):
    """Owns the process. For the one thread of its process, which runs `loop`: it forks.

    `connected(socket, clean)` is handed a connection to each process after the first, and whether the one before ended
    with exit code 0; `ended(reason)` hears of each end.
    """

    def __init__(
        self,
        name: str,
        sockets: str,
        log: int,
        loop: Loop,
        *,
        connected: Callable[[socket.socket, bool], None],
        ended: Callable[[str], None],
    ) -> None:
        """`sockets`: a folder that nobody else may enter. `log`: for the program's output; stays the caller's."""
        self.name = name
        self.log = log
        self.missing: tuple[str, ...] = ()  # walls that this host refuses
        self.pid: int | None = None
        self._path = os.path.join(sockets, f"{name}.vhost")
        self._loop = loop
        self._connected, self._ended = connected, ended
        self._pidfd = -1
        self._delay_s = FIRST_DELAY_S
        self._clean = False
        self._began = 0.0
        self._closing = False

    @abstractmethod
    def launch(self, listener: int) -> Started:
        """Run the program, to serve who connects to `listener`. Raises OSError."""

    def start(self) -> socket.socket:
        """A connection to it, which is the caller's. Raises OSError, and nothing runs then."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        connection = socket.socket(socket.AF_UNIX)
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(self._path)
                listener.listen(1)
                connection.connect(self._path)  # it is accepted once the program is up
                started = self.launch(listener.fileno())
        except BaseException:
            connection.close()
            raise
        finally:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
        self.pid, self.missing = started.pid, started.missing
        self._began = time.monotonic()
        self._pidfd = os.pidfd_open(started.pid)
        self._loop.watch(self._pidfd, lambda _: self._has_ended())
        return connection

    def replace(self) -> None:
        """End it, for its machine has lost it: another is started. It may just be ending by itself: it gets END_S."""
        pid = self.pid

        def insist() -> None:
            if self.pid == pid:
                self._signal(signal.SIGKILL)

        self._signal(signal.SIGTERM)
        self._loop.after(END_S, insist)

    def _signal(self, number: int) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _has_ended(self) -> None:
        reason = self._reap()
        self.over()
        if time.monotonic() - self._began > LONG_LIFE_S:
            self._delay_s = FIRST_DELAY_S
        self._again()
        self._ended(reason)

    def _reap(self) -> str:
        """How it ended."""
        assert self.pid is not None
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        self.pid, self._pidfd = None, -1
        code = os.waitstatus_to_exitcode(status)
        self._clean = code == 0
        return f"{self.name}: killed by {signal.Signals(-code).name}" if code < 0 else f"{self.name}: exit code {code}"

    def _runs(self) -> bool:
        return os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def over(self) -> None:
        """The process is gone: release what was kept for it."""
        return

    def _again(self) -> None:
        self._loop.after(self._delay_s, self._restart)
        self._delay_s = min(2 * self._delay_s, MAX_DELAY_S)

    def _restart(self) -> None:
        if self._closing or self.pid is not None:
            return
        try:
            connection = self.start()
        except OSError as error:
            self._again()
            self._ended(f"{self.name}: {error}")
            return
        self._connected(connection, self._clean)

    def close(self) -> None:
        """End it: it gets END_S to finish. After the machine's end."""
        self._closing = True
        if self.pid is None:
            return
        deadline = time.monotonic() + END_S
        while self._runs() and time.monotonic() < deadline:
            self._signal(signal.SIGTERM)  # again and again: as process 1 it ignores it until it has a handler
            time.sleep(0.01)
        self._signal(signal.SIGKILL)
        self._reap()
        self.over()


def find(candidates: tuple[str, ...], hint: str) -> str:
    """The first of the programs that there is. Raises OSError."""
    for path in candidates:
        if os.access(path, os.X_OK):
            return path
    raise OSError(f"{os.path.basename(candidates[0])} is not installed (`{hint}`)")
