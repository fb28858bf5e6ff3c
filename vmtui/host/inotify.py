"""inotify(7) through ctypes, for watching a few directories without polling."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

# include/uapi/linux/inotify.h
IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC
EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Watches directories (not their subdirectories); iterate it for the paths that changed."""

    def __init__(self) -> None:
        self._fd: int = _libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._directories: dict[int, Path] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, directory: Path, *, writes: bool = False) -> None:
        """Start to watch `directory`. A directory that is gone is ignored. Raises OSError on a full watch table.

        With `writes`, every write into a file of it counts, not only the end of writing.
        """
        mask = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | (IN_MODIFY if writes else 0)
        number = _libc.inotify_add_watch(self._fd, os.fsencode(directory), ctypes.c_uint32(mask))
        if number >= 0:
            self._directories[number] = directory
        elif ctypes.get_errno() not in (errno.ENOENT, errno.ENOTDIR):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))

    async def changes(self) -> AsyncIterator[Path]:
        """The paths that were made, written, renamed or removed, as it happens, until the iterator is closed."""
        self._loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        self._loop.add_reader(self._fd, ready.set)
        try:
            while True:
                await ready.wait()
                ready.clear()
                try:
                    data = os.read(self._fd, 65536)
                except BlockingIOError:
                    continue
                offset = 0
                while offset < len(data):
                    number, _, _, length = EVENT.unpack_from(data, offset)
                    offset += EVENT.size
                    name = data[offset : offset + length].rstrip(b"\0")
                    offset += length
                    if number in self._directories:
                        yield self._directories[number] / os.fsdecode(name)
        finally:
            self._forget()

    def _forget(self) -> None:
        """Before the descriptor is closed: the loop must not take the next one of its number for it."""
        if self._loop is not None and self._fd >= 0:
            self._loop.remove_reader(self._fd)
        self._loop = None

    def close(self) -> None:
        self._forget()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
