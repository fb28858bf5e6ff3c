"""One change at a time on this host, whatever workspace it is for: all share a table, a sysctl and the addresses."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

from vmtui.core.errors import LockHeld, MissingCapability

# Not under Paths.runtime, which is private to the user: dnsmasq runs as another one and must reach its files.
ROOT = Path("/run/vmtui-tap")
POLL_S = 0.005
WAIT_S = 60.0
_held: ContextVar[tuple[int, ...]] = ContextVar("held", default=())


def held() -> tuple[int, ...]:
    """The fd of the lock, for tools to inherit: the lock is then held until they have ended, even if we are killed."""
    return _held.get()


@asynccontextmanager
async def exclusive() -> AsyncIterator[None]:
    """Hold the kernel's lock on ROOT, which is there as long as it is held, and goes when it is empty.

    Raises LockHeld after a minute, MissingCapability without the right to make ROOT.
    """
    deadline = time.monotonic() + WAIT_S
    fd = _try()
    while fd is None:
        if time.monotonic() >= deadline:
            raise LockHeld("another vmtui changes the networks of this host", hint="wait for it to end")
        await asyncio.sleep(POLL_S)
        fd = _try()
    outer = _held.set((fd,))
    try:
        yield
    finally:
        _held.reset(outer)
        with contextlib.suppress(OSError):
            if _is_current(fd):  # else somebody removed ours, and this is another's, who holds its lock
                ROOT.rmdir()
        os.close(fd)


def _try() -> int | None:
    """An fd that holds the lock on what ROOT is now, or None."""
    try:
        ROOT.mkdir(mode=0o711, exist_ok=True)
        fd = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.fchmod(fd, 0o711)  # whatever the umask: dnsmasq, which is not root, passes through it
    except FileNotFoundError:  # the one before us removed it in between
        return None
    except PermissionError:
        raise MissingCapability(f"no right to write {ROOT}: networks need root", hint="sudo -E vmtui") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_current(fd):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def _is_current(fd: int) -> bool:
    """Whether ROOT is the directory that is open there. Raises FileNotFoundError if it is none any more."""
    return os.path.samestat(os.fstat(fd), ROOT.stat())
