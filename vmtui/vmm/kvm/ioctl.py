"""ioctl(2) through ctypes.

Not fcntl.ioctl: it takes a C int only (KVM_SET_TSS_ADDR needs more), and from Python 3.14 on it retries on EINTR, which
is how a vCPU is told to come out of KVM_RUN. The GIL is released during the call.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
raw = _libc.ioctl
raw.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
raw.restype = ctypes.c_int
errno = ctypes.get_errno


def call(fd: int, request: int, what: str, argument: int = 0) -> int:
    """With a number. Raises OSError that says `what`."""
    result: int = raw(fd, request, argument)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def give(fd: int, request: int, what: str, data: bytes | bytearray) -> bytes:
    """With a structure, which is returned as the kernel left it. Raises OSError that says `what`."""
    buffer = ctypes.create_string_buffer(bytes(data), len(data))
    call(fd, request, what, ctypes.addressof(buffer))
    return buffer.raw
