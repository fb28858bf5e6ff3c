"""What is typed, or comes through a pipe, without blocking the event loop.

The descriptor itself stays blocking: it is shared with the shell that started us.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

from vmtui.headless.screen import Screen

CHUNK = 65536
MAX_LINE = 1024
SETTLE_S = 0.01


async def chunk() -> bytes:
    """The next bytes of stdin, b"" at its end. Nothing is lost if it is cancelled."""
    fd = sys.stdin.fileno()
    await _readable(fd)
    try:
        return os.read(fd, CHUNK)
    except OSError:  # the terminal is gone
        return b""


async def chunks() -> AsyncIterator[bytes]:
    """The bytes of stdin as they come, to its end."""
    while data := await chunk():
        yield data


async def whole(limit_bytes: int) -> bytes:
    """All of stdin; of more than `limit_bytes` one byte too many, and the rest is not read."""
    read = b""
    async for data in chunks():
        read += data
        if len(read) > limit_bytes:
            return read[: limit_bytes + 1]
    # A link that was lost ends stdin too, and its SIGHUP came first: it is heard before half a text is taken for all.
    await asyncio.sleep(SETTLE_S)
    return read


async def line() -> str:
    """One line of a terminal, as far as it was typed when stdin ends."""
    typed = b""
    async for data in chunks():
        typed += data
        if b"\n" in typed or len(typed) > MAX_LINE:
            break
    return typed.partition(b"\n")[0].decode("utf-8", "replace")


class Lines:
    """The lines of stdin; on a terminal each is asked for by a prompt."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._asks = screen.data_is_tty and sys.stdin.isatty()
        self._typed = b""
        self._ended = False
        self._prompt = b""

    async def next(self, prompt: str) -> str | None:
        """Without its end; None at the end of stdin. Nothing is lost if it is cancelled."""
        self._prompt = prompt.encode()
        self.again()
        while b"\n" not in self._typed and not self._ended and len(self._typed) < CHUNK:
            data = await chunk()
            self._typed += data
            self._ended = not data
        self._prompt = b""
        if not self._typed and self._ended:
            return None
        first, _, self._typed = self._typed.partition(b"\n")
        return first.decode("utf-8", "replace").rstrip("\r")

    def interrupted(self) -> None:
        """Something is about to be said while the prompt waits."""
        if self._asks and self._prompt:
            self._screen.raw(b"\n")

    def again(self) -> None:
        """The prompt, after an interruption."""
        if self._asks and self._prompt:
            self._screen.raw(self._prompt)


async def _readable(fd: int) -> None:
    """Return when a read would not block. Anew for each read: readiness seen before a read says nothing after it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:  # epoll(7) refuses regular files, whose reads do not block
        await asyncio.sleep(0)
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
