"""Where the guest's connections by vsock lead: to unix sockets beside the VM's own, and to the status port.

Part of the monitor: the machine asks by number alone, may have been taken over, and gets no name of a file across.
"""

from __future__ import annotations

import os
import socket

from vmtui.vmm.loop import Loop

VSOCK = "vsock.sock"  # who connects to it reaches a port of the guest; vsock.sock_PORT is reached by the guest
STATUS_PORT = 1024  # what the guest's init reports here is noted in RUN/status
LAST_RESERVED_PORT = 1023  # net/vmw_vsock/af_vsock.c: from up to here only the guest's root connects, and so reports
STATUS_BYTES = 128 << 10
MOST_REPORTERS = 4
MOST_PORT = 0xFFFFFFFE  # linux/vm_sockets.h: VMADDR_PORT_ANY is above
PIECE_BYTES = 4096


class Ports:
    """Owns the ends of status connections that are here, and RUN/status."""

    def __init__(self, loop: Loop, run: str, sockets: str) -> None:
        self._loop = loop
        self._run = run
        self._sockets = sockets
        self._reporters: dict[int, socket.socket] = {}
        self._status_fd = -1

    def connect(self, port: object) -> socket.socket | None:
        """The host's end of a new connection to that port, the caller's. None: nobody listens, or not now."""
        if type(port) is not int or not 0 <= port <= MOST_PORT:
            return None
        if port == STATUS_PORT:
            return self._reporter()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            made.connect(os.path.join(self._sockets, f"{VSOCK}_{port}"))
        except OSError:
            made.close()
            return None
        return made

    def _reporter(self) -> socket.socket | None:
        if len(self._reporters) >= MOST_REPORTERS:
            return None
        try:
            if self._status_fd < 0:
                path = os.path.join(self._run, "status")
                self._status_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            ours, theirs = socket.socketpair()
        except OSError:
            return None
        ours.setblocking(False)
        self._reporters[ours.fileno()] = ours
        self._loop.watch(ours.fileno(), lambda _: self._heard(ours))
        return theirs

    def _heard(self, reporter: socket.socket) -> None:
        self._reported(reporter)

    def _reported(self, reporter: socket.socket) -> bool:
        """Whether there may be more."""
        try:
            data = reporter.recv(PIECE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._leave(reporter)
            return False
        try:
            os.write(self._status_fd, data[: max(0, STATUS_BYTES - os.fstat(self._status_fd).st_size)])
        except OSError:
            pass  # no space: it is lost, and the guest does not wait
        return True

    def _leave(self, reporter: socket.socket) -> None:
        self._loop.unwatch(reporter.fileno())
        del self._reporters[reporter.fileno()]
        reporter.close()

    def drain(self) -> None:
        """The machine is gone: note what it left, and be ready for the next one."""
        for reporter in list(self._reporters.values()):
            while self._reported(reporter):
                pass
            if reporter.fileno() in self._reporters:
                self._leave(reporter)

    def close(self) -> None:
        self.drain()
        if self._status_fd >= 0:
            os.close(self._status_fd)
            self._status_fd = -1
