"""One writer per workspace: a kernel flock, which a killed process cannot leave behind."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from vmtui.core.errors import LockHeld
from vmtui.host.process import tail

POLL_S = 0.02


@asynccontextmanager
async def exclusive(path: Path, *, wait_s: float, purpose: str) -> AsyncIterator[None]:
    """Hold the lock. Raises LockHeld, naming the holder, if it cannot be had within `wait_s`.

    The file says who holds it, for that message alone; the kernel's lock is what counts.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = tail(os.pread(fd, 200, 0))
                    raise LockHeld(
                        f"another vmtui changes this workspace ({holder or 'unknown'})",
                        hint="wait for it to end, then run this again",
                    ) from None
            await asyncio.sleep(POLL_S)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"pid {os.getpid()}, {purpose}".encode(), 0)
        yield
    finally:
        os.close(fd)
