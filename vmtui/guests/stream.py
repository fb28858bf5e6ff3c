"""A guest's console as a stream over a socket: the part of a Terminal that backends share."""

from __future__ import annotations

import asyncio
from contextlib import suppress

CHUNK = 64 << 10
CLOSE_S = 5.0


class StreamTerminal:
    """Owns the connection. What has a size says so in `resize`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(CHUNK)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError("the console is closed")
        self._writer.write(data)
        await self._writer.drain()

    async def resize(self, rows: int, columns: int) -> None:  # noqa: ARG002
        return  # a serial line has no size

    async def aclose(self) -> None:
        self._writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
