"""Programs of the host that want the guest, as with Firecracker (its docs/vsock.md)."""

from __future__ import annotations

import socket
from collections.abc import Callable

from vmtui.vmm.devices.vsock.packet import COUNTER
from vmtui.vmm.loop import Loop

MOST_WAITING = 64
PATIENCE_S = 5.0
MOST_BYTES = 32  # of the line: "CONNECT " and ten digits are 18


class Greeting:
    """One that has connected and not yet said what it wants. Owns the socket until `hear` has given the port."""

    __slots__ = ("_line", "socket")

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.socket = connected
        self._line = b""

    def hear(self) -> int | None:
        """The port, None until the line is whole; what follows it is left. Raises ValueError, OSError."""
        try:
            seen = self.socket.recv(MOST_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        if not seen:
            raise ValueError("it hung up")
        end = seen.find(b"\n") + 1
        self._line += self.socket.recv(end or len(seen))
        if len(self._line) > MOST_BYTES:
            raise ValueError("a line too long")
        if not end:
            return None
        word, _, number = self._line.rstrip().partition(b" ")
        if word != b"CONNECT" or not number.isdigit() or len(number) > 10 or int(number) >= COUNTER:
            raise ValueError("not a request to connect")
        return int(number)


class Door:
    """The listening socket, and who has not yet said where to. All in the loop's thread. Owns the listener."""

    def __init__(self, loop: Loop, listener: socket.socket, wanted: Callable[[int, socket.socket], None]) -> None:
        """`wanted(port, connection)` takes the connection over."""
        self._loop = loop
        self._listener = listener
        self._wanted = wanted
        self._waiting: set[Greeting] = set()
        listener.setblocking(False)
        loop.watch(listener.fileno(), lambda _: self._accept())

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it went again
        if len(self._waiting) >= MOST_WAITING:
            connection.close()
            return
        greeting = Greeting(connection)
        self._waiting.add(greeting)
        self._loop.watch(connection.fileno(), lambda _: self._hear(greeting))
        self._loop.after(PATIENCE_S, lambda: self._turn_away(greeting))

    def _hear(self, greeting: Greeting) -> None:
        if greeting not in self._waiting:
            return
        try:
            port = greeting.hear()
        except (OSError, ValueError):
            self._turn_away(greeting)
            return
        if port is not None:
            self._loop.unwatch(greeting.socket.fileno())
            self._waiting.discard(greeting)
            self._wanted(port, greeting.socket)

    def _turn_away(self, greeting: Greeting) -> None:
        if greeting in self._waiting:
            self._loop.unwatch(greeting.socket.fileno())
            self._waiting.discard(greeting)
            greeting.socket.close()

    def close(self) -> None:
        for greeting in list(self._waiting):
            self._turn_away(greeting)
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
