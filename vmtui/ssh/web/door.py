"""The listening socket: who is let in to speak at all. A crowd of strangers keeps nobody out.

Connections that have shown no login have a limit, TLS handshakes that are under way included. Where there are more, the
oldest of them go. None has long: see `server` for how long one may stay silent.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Protocol

HANDSHAKE_S = 10.0
AGAIN_S = 0.2
GONE = frozenset({errno.ECONNABORTED, errno.EPROTO})  # accept(2): the other end had second thoughts


class Guests(Protocol):
    """Those whose connections are made."""

    def meet(self) -> asyncio.Protocol:
        """The other end of a new connection."""
        ...

    def strangers(self) -> list[asyncio.Transport]:
        """Of those who have shown no login, the oldest first."""
        ...


class Door:
    """Owns the socket. `aclose` closes it, and gives up the handshakes that are under way."""

    def __init__(self, listening: socket.socket, guests: Guests, context: ssl.SSLContext | None, most: int) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._guests = guests
        self._context = context
        self._most = most
        self._greeted: dict[asyncio.Task[None], None] = {}
        self._accepting = asyncio.create_task(self._accept())

    async def aclose(self) -> None:
        tasks = (self._accepting, *self._greeted)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listening)
            except OSError as error:
                if error.errno not in GONE:  # no descriptors or no memory: those who wait are accepted when there are
                    await asyncio.sleep(AGAIN_S)
                continue
            self._make_room()
            task = loop.create_task(self._greet(connection))
            self._greeted[task] = None
            task.add_done_callback(lambda done: self._greeted.pop(done, None))

    async def _greet(self, connection: socket.socket) -> None:
        limit = HANDSHAKE_S if self._context else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._guests.meet, connection, ssl=self._context, ssl_handshake_timeout=limit
            )
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is an OSError; who left has no handshake
            connection.close()

    def _make_room(self) -> None:
        strangers = self._guests.strangers()
        excess = len(strangers) + len(self._greeted) + 1 - self._most
        for transport in strangers[: max(0, excess)]:
            transport.abort()
        for task in list(self._greeted)[: max(0, excess - len(strangers))]:
            task.cancel()
