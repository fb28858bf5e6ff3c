"""The monitor: one guest's parent. Keeps its log, its clock and its result; sees none of the module's bytes.

Signals: SIGTERM interrupts the module. The guest may be stopped and continued (SIGSTOP, SIGCONT) by anyone; the time
that it stands still does not count against the time-out.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from vmtui.sandbox import state
from vmtui.sandbox.config import Config
from vmtui.sandbox.log import Log
from vmtui.sandbox.outcome import Ending, Outcome, of_death, of_report
from vmtui.sandbox.process import Failed, receive
from vmtui.wire.lines import Channel, WireError

READY_S = 30.0  # for a guest to load a module that is compiled already
INTERRUPT_S = 0.5  # for a module to end after an interrupt; a call of the host that waits is not interrupted
READ_BYTES = 64 << 10


class Clock:
    """Counts down while it is not stopped. Without a limit it never ends."""

    def __init__(self, limit_s: float | None) -> None:
        self._left = limit_s
        self._since: float | None = time.monotonic()

    def stop(self) -> None:
        self._left = self.left()
        self._since = None

    def go(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def left(self) -> float | None:
        if self._left is None or self._since is None:
            return self._left
        return self._left - (time.monotonic() - self._since)

    @property
    def running(self) -> bool:
        return self._since is not None


class Monitor:
    """Owns the guest's process, both pipes of its output, the channel to it, the log, and the folder's lock."""

    def __init__(
        self, config: Config, pid: int, channel: Channel, outputs: dict[int, str], log: Log, lock: int
    ) -> None:
        self._config = config
        self._pid = pid
        self._channel = channel
        self._outputs = outputs  # file descriptor → stream
        self._log = log
        self._lock = lock
        self._log_failure = ""
        self.started = False  # whether it ran, however short
        self._me: dict[str, Any] = {}
        self._started_at = 0.0
        self._clock = Clock(None)
        self._ending = Ending()
        self._kill_at: float | None = None
        self._listening = True
        self._report: dict[str, Any] | None = None
        self._dead: os.waitid_result | None = None
        self._poll = select.poll()
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, _heard)

    def begun(self) -> dict[str, Any]:
        """Wait until the guest is ready; its message, or the failure to report. Raises WireError."""
        try:
            return receive(self._channel, READY_S, "loading the module")
        except Failed as failed:
            return failed.message

    def run(self, facts: dict[str, Any], tell: Callable[[], None]) -> None:
        """Record that it runs, `tell` so, let it, and return when its result is written. Raises OSError."""
        self._me, self._started_at = state.identify(os.getpid()), time.time()
        process = {"monitor": self._me, "guest": state.identify(self._pid), "started_at": self._started_at}
        state.write(self._config.directory, state.PROCESS, process | facts)
        self.started = True
        tell()
        self._clock = Clock(self._config.timeout_s)
        for fd in (self._wake, self._channel.read_fd, *self._outputs):
            self._poll.register(fd, select.POLLIN)
        self._tell({"event": "go"})
        while self._dead is None or self._outputs:
            for fd, _ in self._poll.poll(self._wait_ms()):
                self._handle(fd)
            self._act_on_time()
            if self._dead is not None:
                self._drain()
        self._finish()

    @property
    def stopped(self) -> bool:
        """Whether it ended because it was asked to: nobody has to act on that."""
        return self._ending.why == "stop"

    def _handle(self, fd: int) -> None:
        if fd == self._wake:
            for number in os.read(fd, READ_BYTES):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._interrupt("stop")
            self._reap()
        elif fd == self._channel.read_fd:
            self._listen()
        elif fd in self._outputs:
            self._copy(fd)

    def _reap(self) -> None:
        """What happened to the guest: it stopped, went on, or died."""
        flags = os.WEXITED | os.WSTOPPED | os.WCONTINUED | os.WNOHANG
        while self._dead is None and (found := os.waitid(os.P_PID, self._pid, flags)) is not None:
            if found.si_code in (os.CLD_STOPPED, os.CLD_TRAPPED):
                self._clock.stop()
                self._note_pause(paused=True)
            elif found.si_code == os.CLD_CONTINUED:
                self._clock.go()
                self._note_pause(paused=False)
            else:
                self._dead = found

    def _note_pause(self, *, paused: bool) -> None:
        """Leave a mark for those who watch the folder; whether it stands still is read from /proc."""
        state.write(self._config.directory, "pause.json", {"paused": paused})

    def _listen(self) -> None:
        try:
            messages = self._channel.available()
        except WireError:
            self._kill()
            messages = None
        if messages is None:
            self._poll.unregister(self._channel.read_fd)
            self._listening = False
            return
        for message in messages:
            if message.get("event") == "ended" and self._report is None:
                self._report = message

    def _copy(self, fd: int) -> None:
        data = os.read(fd, READ_BYTES)
        if not data:
            self._poll.unregister(fd)
            os.close(fd)
            del self._outputs[fd]
            return
        try:
            self._log.write(self._outputs[fd], data)
        except OSError as error:
            self._log_failure = error.strerror or "lost"

    def _drain(self) -> None:
        """After the guest's death: what is left in the pipes. It could have no children, so they end."""
        while self._listening:
            self._listen()
        for fd in list(self._outputs):
            while fd in self._outputs:
                self._copy(fd)

    def _interrupt(self, why: str) -> None:
        if not self._ending.why and self._dead is None:
            self._ending = Ending(why, self._config.timeout_s)
            self._kill_at = time.monotonic() + INTERRUPT_S
            self._tell({"event": "interrupt"})
            os.kill(self._pid, signal.SIGCONT)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._channel.send(message)
        except WireError:
            return  # it died; `_reap` hears of it

    def _kill(self) -> None:
        if self._dead is None:
            os.kill(self._pid, signal.SIGKILL)

    def _act_on_time(self) -> None:
        left = self._clock.left()
        if left is not None and left <= 0 and self._clock.running:
            self._interrupt("timeout")
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill()
            self._kill_at = None

    def _wait_ms(self) -> int | None:
        ends = []
        left = self._clock.left()
        if left is not None and self._clock.running and not self._ending.why:
            ends.append(left)
        if self._kill_at is not None:
            ends.append(self._kill_at - time.monotonic())
        return None if not ends else max(0, int(min(ends) * 1000) + 1)

    def _finish(self) -> None:
        assert self._dead is not None
        try:
            self._log.close()
        except OSError as error:
            self._log_failure = error.strerror or "lost"
        result = {
            "monitor": self._me,
            "started_at": self._started_at,
            "at": time.time(),
            "stopped": self.stopped,
            "log_failure": self._log_failure,
            "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10,
            **_figures(self._report),
            **self._outcome(self._dead)._asdict(),
        }
        os.close(self._lock)  # before the result: whoever sees that may start the next run
        state.write(self._config.directory, state.RESULT, result)

    def _outcome(self, dead: os.waitid_result) -> Outcome:
        if self._report is not None:
            return of_report(self._report, self._ending, self._config.fuel)
        by_signal = dead.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
        number = dead.si_status if by_signal else 0
        return of_death(number, dead.si_status, self._ending)


def _heard(number: int, frame: FrameType | None) -> None:
    """The number arrives through the wake-up descriptor; the default action must not."""


def _figures(report: dict[str, Any] | None) -> dict[str, int]:
    """The numbers of a report, if they are any."""
    found = report or {}
    return {
        name: value
        for name in ("fuel_used", "memory_bytes")
        if isinstance(value := found.get(name), int) and 0 <= value < 1 << 64
    }


def reap(argv: tuple[str, ...]) -> None:
    """Run what acts on the end of the workload, by itself, in our environment. Raises OSError."""
    if argv:
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        default = [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD]
        os.posix_spawn(argv[0], argv, os.environ, file_actions=null, setsid=True, setsigdef=default)
