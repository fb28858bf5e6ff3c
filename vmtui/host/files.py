"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import shlex
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def in_words(error: OSError) -> str:
    """Why, as people say it, without its number and its path."""
    return "no space left" if error.errno in FULL else (error.strerror or str(error)).lower()


def remedy(error: OSError, *directories: Path) -> str:
    """The command that shows what is in the way of writing to `directories`."""
    if error.errno in FULL:
        return f"df -h {' '.join(shlex.quote(str(directory)) for directory in directories)}".rstrip()
    return f"ls -ld {shlex.quote(str(error.filename))}" if error.filename else "vmtui doctor"


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `data`: temporary file, fsync, rename. Raises OSError; the old file then stands."""
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def open_regular(path: Path) -> BinaryIO:
    """An open file. Raises OSError, also for what is no regular file: opening a FIFO would wait for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(fd, "rb")


def read_tail(path: Path, lines: int, *, limit_bytes: int = 1 << 20) -> list[bytes]:
    """The last `lines` lines of a file, reading at most `limit_bytes` from its end; [] if it is not there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit_bytes))
            return file.read().splitlines()[-lines:] if lines else []
    except FileNotFoundError:
        return []
