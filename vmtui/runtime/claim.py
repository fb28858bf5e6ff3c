"""Directories that one process at a time works in, and that never outlive it unseen."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from vmtui.core.errors import LockHeld

POLL_S = 0.02


def _try(path: Path) -> int | None:
    """An fd that holds the flock of the directory at `path`, or None if another has it or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it before may have renamed or removed it since it was opened.
        if os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def make_private(path: Path) -> None:
    """Make a directory and its missing parents, each for us alone. Raises OSError."""
    for parent in [*reversed(path.parents), path]:
        if not parent.is_dir():
            parent.mkdir(mode=0o700, exist_ok=True)


def _empty(path: Path) -> None:
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


@asynccontextmanager
async def claim(path: Path, *, timeout: float) -> AsyncIterator[int]:
    """Hold the directory `path`, made if need be and empty, alone among all processes; yields its fd.

    The lock is the directory's own flock. A child process that inherits the fd holds it too, so that what a dead
    process left is taken over only when its children are gone. What is at `path` on leaving is removed; who wants to
    keep it renames it. Raises LockHeld after `timeout`, OSError.
    """
    deadline = time.monotonic() + timeout
    while True:
        make_private(path)
        fd = _try(path)
        if fd is not None:
            break
        if time.monotonic() > deadline:
            raise LockHeld(f"another process has worked on {path} for {timeout:g} s")
        await asyncio.sleep(POLL_S)
    try:
        _empty(path)
        yield fd
    finally:
        try:
            if path.exists() and os.path.samestat(os.stat(path), os.fstat(fd)):
                shutil.rmtree(path)
        finally:
            os.close(fd)


def sweep(parent: Path, pattern: str = "*") -> None:
    """Remove the claimed directories of dead processes."""
    for path in parent.glob(pattern):
        fd = _try(path)
        if fd is not None:
            try:
                shutil.rmtree(path)
            finally:
                os.close(fd)
