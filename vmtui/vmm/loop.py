"""A thread that waits for file descriptors and runs callbacks: all I/O that is not a vCPU's happens in one of these.

vCPU threads never do disk, network or socket work; a slow client or disk holds up its own loop alone.
"""

from __future__ import annotations

import heapq
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from vmtui.vmm.eventfd import EventFd

Callback = Callable[[int], None]
EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP, select.EPOLLERR


class Loop:
    """Callbacks run in the thread of `run`. One that raises loses its watch, and `failed` hears of it."""

    def __init__(self, name: str, failed: Callable[[str, BaseException], None]) -> None:
        self.name = name
        self._failed = failed
        self._epoll = select.epoll()
        self._watches: dict[int, Callback] = {}
        self._wake = EventFd()
        self._calls: list[Callable[[], None]] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._lock = threading.Lock()
        self._order = count()
        self._ending = False
        self._runner: int | None = None  # the thread that is in `run`
        self._thread: threading.Thread | None = None
        self._epoll.register(self._wake.fd, EPOLLIN)

    def watch(self, fd: int, callback: Callback, events: int = EPOLLIN) -> None:
        """Call `callback(events)` while `fd` is ready, level-triggered. From any thread; again changes the events.

        Raises OSError: it cannot be waited for; nothing has changed.
        """
        with self._lock:
            if fd in self._watches:
                self._epoll.modify(fd, events)
            else:
                self._epoll.register(fd, events)
            self._watches[fd] = callback

    def unwatch(self, fd: int) -> None:
        """From any thread, before `fd` is closed. A callback that just runs may still be running after."""
        with self._lock:
            if self._watches.pop(fd, None) is not None:
                with suppress(OSError):  # closed already
                    self._epoll.unregister(fd)

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` in the loop's thread, soon. From any thread."""
        with self._lock:
            self._calls.append(function)
        self._wake.signal()

    def do(self, function: Callable[[], None], timeout_s: float) -> bool:
        """Run `function` in the loop's thread and wait for its end; at once, if that is this one, or there is none.

        False: it has not ended within that time. It still will run.
        """
        if self._runner in (None, threading.get_ident()):
            function()
            return True
        done = threading.Event()

        def act() -> None:
            try:
                function()
            finally:
                done.set()

        self.call(act)
        return done.wait(timeout_s)

    def after(self, seconds: float, function: Callable[[], None]) -> None:
        """Run `function` in the loop's thread, not before that time."""
        with self._lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), function))
        self._wake.signal()

    def start(self) -> None:
        self._runner = 0  # not known yet, but there is one
        self._thread = threading.Thread(target=self.run, name=self.name, daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Until `stop`."""
        self._runner = threading.get_ident()
        try:
            while not self._ending:
                self.turn(self._timeout())
        finally:
            self._runner = None

    def turn(self, timeout_s: float | None) -> None:
        """Wait for something to happen, for as long as that, and run what is due. For the thread of `run`."""
        for fd, events in self._epoll.poll(timeout_s):
            if fd == self._wake.fd:
                self._wake.drain()
                continue
            callback = self._watches.get(fd)
            if callback is None:
                continue
            try:
                callback(events)
            except Exception as error:  # one device's fault ends its own watch, nothing else
                self.unwatch(fd)
                self._failed(self.name, error)
        self._run_due()

    def _timeout(self) -> float | None:
        with self._lock:
            if self._calls:
                return 0
            return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _run_due(self) -> None:
        with self._lock:
            due, self._calls = self._calls, []
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
        for function in due:
            try:
                function()
            except Exception as error:
                self._failed(self.name, error)

    def stop(self) -> None:
        """End `run`, and wait for its thread unless it is this one."""
        self._ending = True
        self._wake.signal()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)

    def close(self) -> None:
        """After `stop`."""
        self._epoll.close()
        self._wake.close()
