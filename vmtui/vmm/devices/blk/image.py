"""The host's side of a disk: a raw file or block device, open and locked."""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from vmtui.vmm.devices.blk.layout import SECTOR
from vmtui.vmm.devices.blk.lock import lock_image

# linux/falloc.h
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10
ZEROES_BYTES = 1 << 20
BLOCKS = tuple(SECTOR << exponent for exponent in range(8))  # what is believed as the unit of a file system's writes
_UNABLE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Image:
    """Owns the descriptor, and with it the locks. Made by who may open files; works where nothing may be opened."""

    def __init__(self, path: str, *, writable: bool) -> None:
        """Raises OSError: not there, neither file nor block device, too small, or used by another program."""
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO is not waited for
        fd = os.open(path, flags)
        try:
            status = os.fstat(fd)
            self.is_device = stat.S_ISBLK(status.st_mode)
            if self.is_device and writable:  # refused while it is mounted here: open(2), O_EXCL without O_CREAT
                shared, fd = fd, os.open(path, flags | os.O_EXCL)
                os.close(shared)
            elif not self.is_device and not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "neither a file nor a block device", path)
            lock_image(fd, path, writable=writable)
            self.fd = fd
            self.path, self.writable = path, writable
            self.block_bytes = status.st_blksize if status.st_blksize in BLOCKS else 4096
            self.refresh()
            if self.size_bytes < SECTOR:
                raise OSError(errno.EINVAL, f"a disk of {self.size_bytes} bytes", path)
        except BaseException:
            os.close(fd)
            raise

    def refresh(self) -> None:
        """Look how large it is now. What does not fill a sector at its end is not part of the disk."""
        self.size_bytes = os.lseek(self.fd, 0, os.SEEK_END) & ~(SECTOR - 1)

    def grow(self, size_bytes: int) -> None:
        """Make the file at least that large; a device is as large as it is. Raises OSError."""
        self.refresh()
        if size_bytes > self.size_bytes and not self.is_device:
            os.ftruncate(self.fd, size_bytes)
            self.refresh()
        if size_bytes > self.size_bytes:
            raise OSError(errno.ENOSPC, f"{self.path} has {self.size_bytes} bytes, less than {size_bytes}")

    def discard(self, offset: int, length: int) -> None:
        """Give the space back, if that can be done; a hint. Raises OSError for an error of the disk."""
        self._allocate(PUNCH_HOLE | KEEP_SIZE, offset, length)

    def zero(self, offset: int, length: int, *, unmap: bool) -> None:
        """Make it read as zeros. `unmap`: the space may be given back. Raises OSError."""
        if unmap and self._allocate(PUNCH_HOLE | KEEP_SIZE, offset, length):
            return
        if self._allocate(ZERO_RANGE | KEEP_SIZE, offset, length):
            return
        zeroes = memoryview(bytes(min(length, ZEROES_BYTES)))
        while length > 0:
            done = os.pwrite(self.fd, zeroes[:length], offset)
            offset += done
            length -= done

    def _allocate(self, mode: int, offset: int, length: int) -> bool:
        """fallocate(2). False: the file system or device cannot."""
        if _fallocate(self.fd, mode, offset, length) == 0:
            return True
        number = ctypes.get_errno()
        if number in _UNABLE:
            return False
        raise OSError(number, os.strerror(number), self.path)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
