"""Bytes between a channel and a TCP connection, neither faster than the slower side takes them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import asyncssh

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
        self._input: list[bytes] = []
        self._input_bytes = 0
        self._eof = False
        self._more = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.sent = self.received = 0
        self._task = visitor.server.start(self._run())

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel = None
        self._writable.set()
        self._task.cancel()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._input.append(data)
        self._input_bytes += len(data)
        self._more.set()
        if self._input_bytes >= CHUNK_BYTES:
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        self._more.set()
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
        while True:
            while self._input:
                data = self._input.pop(0)
                await loop.sock_sendall(self._socket, data)
                self.sent += len(data)
                self._input_bytes -= len(data)
                if self._input_bytes < CHUNK_BYTES and self._channel is not None:
                    self._channel.resume_reading()
            if self._eof:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
                return
            await self._more.wait()
            self._more.clear()

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
