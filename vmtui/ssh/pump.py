"""Descriptors of a session as streams: read when somebody takes what comes, written with a bound on what waits."""

from __future__ import annotations

import asyncio
import os
from collections import deque

READ_BYTES = 64 << 10


class Source:
    """What a session writes. Owns the descriptor."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._waiting: asyncio.Future[None] | None = None
        self._finished = False

    async def read(self) -> bytes:
        """What is there, waiting for some; b"" at the end. For one reader."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                if self._finished:
                    return b""
            except OSError:
                return b""  # EIO: nobody has the terminal open any more
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            loop.add_reader(self._fd, _settle, self._waiting)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if self._fd >= 0:
                    loop.remove_reader(self._fd)
        return b""

    def finish(self) -> None:
        """Nobody writes any more: what is there yet is read, and then the end."""
        self._finished = True
        if self._waiting is not None:
            _settle(self._waiting)

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)
        self.finish()


class Sink:
    """What a session reads. Owns the descriptor. What cannot be written any more is dropped."""

    def __init__(self, fd: int, limit_bytes: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._limit = limit_bytes
        self._pending: deque[bytes] = deque()
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False

    @property
    def pending_bytes(self) -> int:
        return self._bytes

    def feed(self, data: bytes) -> None:
        if self._fd < 0 or self._closing or not data:
            return
        self._pending.append(data)
        self._bytes += len(data)
        self._flush()

    async def drained(self) -> None:
        """Until less than the limit waits."""
        await self._room.wait()

    def end(self) -> None:
        """Close once all is written."""
        self._closing = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_writer(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)
        self._pending.clear()
        self._bytes = 0
        self._room.set()

    def _flush(self) -> None:
        try:
            while self._pending:
                sent = os.write(self._fd, self._pending[0])
                self._bytes -= sent
                if sent == len(self._pending[0]):
                    self._pending.popleft()
                else:
                    self._pending[0] = self._pending[0][sent:]
        except BlockingIOError:
            asyncio.get_running_loop().add_writer(self._fd, self._flush)
            (self._room.set if self._bytes < self._limit else self._room.clear)()
            return
        except OSError:
            self.close()
            return
        asyncio.get_running_loop().remove_writer(self._fd)
        self._room.set()
        if self._closing:
            self.close()


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
