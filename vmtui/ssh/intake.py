"""What a client has sent on a channel and nobody has taken yet, with a bound."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from vmtui.ssh.channel import WINDOW_BYTES


class Intake:
    """For one taker. At most two windows of the channel are kept: one here, and one with asyncssh.

    asyncssh opens the whole window again as soon as it hands over the first packet of those that it kept back, and
    counts none of the others. Hence it is let go on only once everything is taken, and for a whole window: else more
    is let in each time than is taken, and what waits has no bound.
    """

    def __init__(self) -> None:
        self.channel: Any = None
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._more = asyncio.Event()

    def put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._bytes += len(data)
        self._more.set()
        if self._bytes >= WINDOW_BYTES and self.channel is not None:
            self.channel.pause_reading()

    def end(self) -> None:
        """No more comes."""
        self._ended = True
        self._more.set()

    async def take(self) -> bytes:
        """The next, waiting for it; b"" at the end. What was taken before counts as used."""
        while not self._waiting:
            self._bytes = 0
            self._more.clear()
            if self.channel is not None:
                self.channel.resume_reading()  # which may put more, or end it
            if not self._waiting:
                if self._ended:
                    return b""
                await self._more.wait()
        return self._waiting.popleft()
