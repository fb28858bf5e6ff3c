"""Bytes between a channel and a TCP connection, neither faster than the slower side takes them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import asyncssh

from vmtui.ssh.intake import Intake

if TYPE_CHECKING:
    from vmtui.ssh.visitor import Visitor

CHUNK_BYTES = 64 << 10


class Relay(asyncssh.SSHTCPSession[bytes]):
    """Owns the socket. `over` is told how many bytes went there and came from there, once."""

    def __init__(self, visitor: Visitor, sock: socket.socket, over: Callable[[int, int], None]) -> None:
        self._visitor = visitor
        self._socket = sock
        self._over = over
        self._channel: Any = None
        self._intake = Intake()
        self._writable = asyncio.Event()
        self._writable.set()
        self.sent = self.received = 0
        self._task = visitor.server.start(self._run())

    def connection_made(self, chan: Any) -> None:
        self._channel = self._intake.channel = chan

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel = self._intake.channel = None
        self._writable.set()
        self._task.cancel()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._intake.put(data)

    def eof_received(self) -> bool:
        self._intake.end()
        return True

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._there())
                both.create_task(self._back())
        except* OSError:
            pass  # one side is gone: so is the other
        finally:
            self._socket.close()
            self._over(self.sent, self.received)
            if self._channel is not None:
                self._channel.close()

    async def _there(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await self._intake.take():
            await loop.sock_sendall(self._socket, data)
            self.sent += len(data)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def _back(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._socket, CHUNK_BYTES):
            if self._channel is None:
                return
            self._channel.write(data)
            self.received += len(data)
            await self._writable.wait()
            await self._visitor.writable.wait()
        if self._channel is not None:
            self._channel.write_eof()
