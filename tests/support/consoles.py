"""A terminal with both its devices in a loop, and a log that is a pipe, as in a machine."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vmtui.vmm.devices.console import Console
from vmtui.vmm.devices.serial import Serial
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.loop import Loop
from vmtui.vmm.terminal import Output, Terminal


class Consoles:
    """`log`: all that was read from the log's end so far, unless `reads_log` is False."""

    def __init__(self, *, reads_log: bool = True) -> None:
        self.errors: list[BaseException] = []
        self.loop = Loop("main", lambda _, error: self.errors.append(error))
        self.log_read, self._log_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.log = bytearray()
        self.interrupt = EventFd()
        self.terminal = Terminal(self.loop, Output(self.loop, self._log_write))
        self.serial = Serial(self.terminal, self.interrupt)
        self.console = Console("console", self.loop, self.terminal, self.serial)
        self._ends: list[socket.socket] = []
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        if reads_log:
            self._reader.start()
        self.loop.start()

    def _read(self) -> None:
        while not self._over.is_set():
            if select.select([self.log_read], [], [], 0.01)[0]:
                self.log += os.read(self.log_read, 1 << 16)

    def attach(self) -> socket.socket:
        """A client, as the control socket hands it over."""
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        self._ends.append(ours)
        assert self.loop.do(lambda: self.terminal.attach(theirs), 60)
        return ours

    def await_log(self, text: bytes) -> None:
        until(lambda: text in self.log)

    def settled(self) -> None:
        """What was written before this has been handed on."""
        assert self.loop.do(self.terminal.flush, 60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.console.reset()
        self.loop.do(self.terminal.close, 60)
        self.loop.stop()
        self._over.set()
        if self._reader.is_alive():
            self._reader.join()
        self.loop.close()
        self.interrupt.close()
        for fd in (self.log_read, self._log_write):
            os.close(fd)
        for end in self._ends:
            end.close()
        assert self.errors == []


def until(true: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.002)


def received(end: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes."""
    data = bytearray()
    while len(data) < count:
        piece = end.recv(count - len(data))
        assert piece, f"it hung up after {bytes(data)!r}"
        data += piece
    return bytes(data)
