"""What is booted from: files that somebody else opened, read straight into guest memory. And what is wrong with one."""

from __future__ import annotations

import mmap
import os
import stat

from vmtui.vmm.memory import GuestMemory


class BootError(Exception):
    """The guest cannot be started with what it was given. `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class BootFile:
    """A regular file by its descriptor, which stays the caller's; `name` is for errors."""

    __slots__ = ("fd", "name", "size")

    def __init__(self, fd: int, name: str) -> None:
        """Raises BootError: empty, or not a regular file."""
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise BootError(f"{name}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise BootError(f"{name} is not a regular file")
        if not status.st_size:
            raise BootError(f"{name} is empty", "an interrupted copy leaves such files: fetch or build it again")
        self.fd, self.name, self.size = fd, name, status.st_size

    def truncated(self) -> BootError:
        return BootError(f"{self.name} is truncated", f"fetch or build it again; it has {self.size} bytes")

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; raises BootError (the file ends before, or cannot be read)."""
        if not 0 <= offset <= offset + length <= self.size:
            raise self.truncated()
        data = bytearray(length)
        self._fill(memoryview(data), offset)
        return bytes(data)

    def load(self, memory: GuestMemory, addr: int, offset: int, length: int) -> None:
        """`length` bytes from `offset` into guest memory below the hole, without a copy on the way.

        The caller knows that they fit. A write to the memory's file takes half as long as a read into its mapping,
        which faults at every page (measured: 14 MB in 6 ms, and in 14 ms). Not every file can be mapped, and huge
        pages cannot be written to: those are read.
        """
        if not 0 <= offset <= offset + length <= self.size:
            raise self.truncated()
        view = memory.view(addr, length)
        try:
            with mmap.mmap(self.fd, self.size, mmap.MAP_PRIVATE, mmap.PROT_READ) as source, memoryview(source) as data:
                done = 0
                while done < length:
                    done += os.pwrite(memory.fd, data[offset + done : offset + length], addr + done)
        except (OSError, ValueError):  # ValueError: the file became shorter
            self._fill(view, offset)

    def _fill(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            try:
                got = os.preadv(self.fd, [view[done:]], offset + done)
            except OSError as error:
                raise BootError(f"{self.name}: {error.strerror}") from None
            if not got:  # it became shorter while it was read
                raise self.truncated()
            done += got
