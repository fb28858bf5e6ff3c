"""The locks by which QEMU's programs keep two writers off one image ("image locking", block/file-posix.c).

For each thing that an opener does, a shared lock on byte 100 + n; for each that it will not have others do, one on
byte 200 + n. Who finds the counterpart of what it wants held, is refused. The locks are on the open file description:
they pass with the descriptor to another process, and end with its last copy.
"""

from __future__ import annotations

import errno
import fcntl
import struct

PERMITTED_AT, REFUSED_AT = 100, 200  # RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE
# include/block/block-common.h, BLK_PERM_*, as bit numbers
CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE = range(4)
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock: l_type, l_whence, l_start, l_len, l_pid


def lock_image(fd: int, path: str, *, writable: bool) -> None:
    """As QEMU does for a guest's disk: others may read it, and resize it, but not write. Raises OSError: one does.

    On file systems that have no locks there is no protection, as with QEMU.
    """
    does = (CONSISTENT_READ, WRITE) if writable else (CONSISTENT_READ,)
    try:
        for bit in does:
            _lock(fd, PERMITTED_AT + bit)
        _lock(fd, REFUSED_AT + WRITE)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL):
            return
        raise
    if any(_locked(fd, REFUSED_AT + bit) for bit in does) or _locked(fd, PERMITTED_AT + WRITE):
        raise OSError(errno.EBUSY, f"another program uses the image (see `fuser -v {path}`)", path)


def _lock(fd: int, byte: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, byte, 1, 0))


def _locked(fd: int, byte: int) -> bool:
    """Whether another has any lock on it."""
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0))
    return int(_FLOCK.unpack(found)[0]) != fcntl.F_UNLCK
