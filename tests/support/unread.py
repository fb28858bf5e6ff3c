"""What has been written to a program that it has not read yet: the one sign from outside that it reads."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import IO


def unread_bytes(file: int | IO[bytes]) -> int:
    """Of a pipe, from either end, or of a terminal (ioctl_pipe(2), tty_ioctl(4): FIONREAD)."""
    (count,) = struct.unpack("i", fcntl.ioctl(file, termios.FIONREAD, bytes(4)))
    return int(count)


def unread_of(tty: str) -> int:
    """The same of a terminal by its name."""
    terminal = os.open(tty, os.O_RDWR | os.O_NOCTTY)
    try:
        return unread_bytes(terminal)
    finally:
        os.close(terminal)
