"""The guest's terminal: what its serial line and its virtio console share.

Output goes to the log, to the kept scrollback, and to everybody attached; input is merged. The devices only append to
and take from bounded buffers; all sockets are the loop's. A client that does not read loses what it did not take in
time, and hears so; the guest and the others never wait for it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from vmtui.vmm.loop import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, Loop

SCROLLBACK_BYTES = 64 << 10
FRESH_BYTES = 256 << 10  # of the guest, until the loop takes it
OUTPUT_BYTES = 1 << 20  # of one client or the log, until what follows is dropped
INPUT_BYTES = 4 << 10  # beyond this nobody attached is read from
PANIC = b"Kernel panic - not syncing: "  # kernel/panic.c
PANIC_BYTES = 200
MOST_CLIENTS = 32
BATCH_S = 0.004  # what follows output within that time is handed on together: a UART is written by bytes
LOST = b"\r\n[vmtui: output was lost here]\r\n"


class Output:
    """A descriptor that takes what it can at once, the rest when it is ready. Bounded: more is dropped, and marked."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop = loop
        self.fd = fd
        self._waiting = bytearray()
        self._lost = False

    def write(self, data: bytes) -> None:
        """In the loop's thread. Raises OSError: the other end is gone."""
        if self._lost and len(self._waiting) <= OUTPUT_BYTES // 2:  # not for every line that it takes
            self._waiting += LOST
            self._lost = False
        if not self._lost:
            self._lost = len(self._waiting) + len(data) > OUTPUT_BYTES
            self._waiting += data[: OUTPUT_BYTES - len(self._waiting)]
        self.flush()

    def flush(self) -> None:
        while self._waiting:
            try:
                done = os.write(self.fd, self._waiting[:65536])
            except BlockingIOError:
                return
            del self._waiting[:done]

    @property
    def waits(self) -> bool:
        return bool(self._waiting)


class Client:
    """Somebody attached. Owns the socket."""

    def __init__(self, loop: Loop, connected: socket.socket) -> None:
        self.socket = connected
        self.output = Output(loop, connected.fileno())
        self.events = 0


class Terminal:
    """`heard` is called, in the loop's thread, when there is input to `take`."""

    def __init__(self, loop: Loop, log: Output) -> None:
        self._loop = loop
        self._log = log
        self._log_watched = False
        self._fresh = bytearray()  # written by any thread; appending is atomic under the GIL
        self._called = self._flooded = False
        self._flushed_at = 0.0
        self._scrollback = bytearray()
        self._clients: dict[int, Client] = {}
        self._input = bytearray()
        self.heard: Callable[[], None] = lambda: None
        self.resized: Callable[[int, int], None] = lambda rows, columns: None

    # The devices

    def write(self, data: bytes) -> None:
        """Output of the guest. From any thread; costs the caller next to nothing."""
        if len(self._fresh) > FRESH_BYTES:
            self._flooded = True  # the loop cannot keep up with it
            return
        self._fresh += data
        if not self._called:
            self._called = True
            if time.monotonic() - self._flushed_at >= BATCH_S:
                self._loop.call(self.flush)
            else:
                self._loop.after(BATCH_S, self.flush)

    def take(self, limit: int) -> bytes:
        """At most `limit` bytes of input. From any thread that has its device's lock."""
        data = bytes(self._input[:limit])
        del self._input[: len(data)]
        if data and len(self._input) < INPUT_BYTES:
            self._loop.call(self._listen)
        return data

    @property
    def waiting(self) -> int:
        return len(self._input)

    # The loop

    def flush(self) -> None:
        """Hand on what the guest has written."""
        self._called = False
        self._flushed_at = time.monotonic()
        data = bytes(self._fresh)
        del self._fresh[: len(data)]
        if not data:
            return
        if self._flooded:
            self._flooded = False
            data += LOST
        self._scrollback += data
        del self._scrollback[: max(0, len(self._scrollback) - SCROLLBACK_BYTES)]
        self._to_log(data)
        for client in list(self._clients.values()):
            self._send(client, data)

    def _to_log(self, data: bytes) -> None:
        try:
            self._log.write(data)
        except OSError:
            return  # whoever keeps the log is gone, and so will we be
        if self._log.waits and not self._log_watched:
            self._log_watched = True
            self._loop.watch(self._log.fd, self._log_ready, EPOLLOUT)

    def last_panic(self) -> str:
        """ "kernel panic: WHY" if the scrollback has one, else "". The text is the guest's: printable ASCII is kept."""
        _, found, after = bytes(self._scrollback).rpartition(PANIC)
        if not found:
            return ""
        line = after[:PANIC_BYTES].splitlines()[0] if after else b""
        return "kernel panic: " + "".join(chr(byte) for byte in line if 32 <= byte < 127)

    @property
    def log_waits(self) -> bool:
        """Whether the log has not yet taken all."""
        return self._log.waits

    def flush_log(self) -> None:
        """Try again, at the end."""
        self._log_ready(EPOLLOUT)

    def _log_ready(self, events: int) -> None:
        try:
            self._log.flush()
        except OSError:
            self._loop.unwatch(self._log.fd)
            return
        if not self._log.waits:
            self._log_watched = False
            self._loop.unwatch(self._log.fd)

    @property
    def is_full(self) -> bool:
        return len(self._clients) >= MOST_CLIENTS

    def attach(self, connected: socket.socket) -> None:
        """Takes the connection over: the scrollback, then all that comes. Not if it `is_full`."""
        connected.setblocking(False)
        client = Client(self._loop, connected)
        self._clients[connected.fileno()] = client
        self._send(client, bytes(self._scrollback))
        self._watch(client)

    def _watch(self, client: Client) -> None:
        if client.output.fd not in self._clients:
            return
        events = (EPOLLOUT if client.output.waits else 0) | (EPOLLIN if len(self._input) < INPUT_BYTES else 0)
        if events != client.events:
            client.events = events
            self._loop.watch(client.output.fd, lambda happened: self._ready(client, happened), events)

    def _listen(self) -> None:
        for client in list(self._clients.values()):
            self._watch(client)

    def _ready(self, client: Client, events: int) -> None:
        try:
            if events & EPOLLOUT:
                client.output.flush()
            if events & ~EPOLLOUT:
                if len(self._input) < INPUT_BYTES:
                    data = client.socket.recv(INPUT_BYTES)
                    self._input += data
                    if data:
                        self.heard()
                    else:
                        self._drop(client)
                elif events & (EPOLLHUP | EPOLLERR):
                    self._drop(client)  # what it still had to say is lost: nobody listens
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        self._watch(client)

    def _send(self, client: Client, data: bytes) -> None:
        try:
            client.output.write(data)
        except OSError:
            self._drop(client)
            return
        self._watch(client)

    def _drop(self, client: Client) -> None:
        if self._clients.pop(client.output.fd, None) is not None:
            self._loop.unwatch(client.output.fd)
            client.socket.close()

    def close(self) -> None:
        """What was written last goes to the log first."""
        self.flush()
        for client in list(self._clients.values()):
            self._drop(client)
