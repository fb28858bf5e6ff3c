"""What is typed, or comes through a pipe, without blocking the event loop.

The descriptor itself stays blocking: it is shared with the shell that started us.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

CHUNK = 65536
MAX_LINE = 1024


async def chunks() -> AsyncIterator[bytes]:
    """The bytes of stdin as they come, to its end."""
    fd = sys.stdin.fileno()
    while True:
        await _readable(fd)
        try:
            data = os.read(fd, CHUNK)
        except OSError:  # the terminal is gone
            return
        if not data:
            return
        yield data


async def line() -> str:
    """One line of a terminal, as far as it was typed when stdin ends."""
    typed = b""
    async for data in chunks():
        typed += data
        if b"\n" in typed or len(typed) > MAX_LINE:
            break
    return typed.partition(b"\n")[0].decode("utf-8", "replace")


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
