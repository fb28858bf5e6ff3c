"""A file of lines that may be huge, grow, be cut or be replaced: read in pieces from any place, never as a whole.

What is shown as one line is a *row*. A row starts at the start of the file, behind a newline, or, inside a line that
fills a whole block without one, at the end of that block. So no row is longer than two blocks, whether one starts at
an offset depends on the block before it alone, nothing that is appended moves a row, and no step reads more than a
few blocks, whatever the file has.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from enum import Enum
from pathlib import Path

BLOCK_BYTES = 16 << 10
WINDOW_BYTES = 128 << 10  # read at once, around what is asked for
TAIL_BYTES = 64  # compared to tell growth from a file that was cut and written again


class Change(Enum):
    """What happened to a file since the last look."""

    NONE = "none"
    GREW = "grew"
    CUT = "cut"  # other bytes are where known ones were


class LineFile:
    """Owns the descriptor. Reads with pread, not by a mapping: a mapped file that is cut kills its reader.

    `read` may be called from any thread, the rest from one. Whatever happens to the path, the file stays readable.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path = path
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not make it wait
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        self.identity = (found.st_dev, found.st_ino)
        self.size = found.st_size
        self.modified_at = found.st_mtime
        self.bytes_read = 0
        self._tail = self._last_bytes()

    def read(self, start: int, end: int) -> bytes:
        """These bytes; fewer where the file ends before, none once it is closed."""
        parts = []
        with self._lock:
            while start < end and self._fd >= 0:
                part = os.pread(self._fd, end - start, start)
                if not part:
                    break
                parts.append(part)
                start += len(part)
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            self.bytes_read += len(data)
        return data

    def refresh(self) -> Change:
        """Look at the file again; `size` is what it has now."""
        found = os.fstat(self._fd)
        if (found.st_size, found.st_mtime) == (self.size, self.modified_at):
            return Change.NONE
        before, self.size, self.modified_at = self.size, found.st_size, found.st_mtime
        kept = self.size >= before and self.read(before - len(self._tail), before) == self._tail
        self._tail = self._last_bytes()
        if kept:
            return Change.GREW if self.size > before else Change.NONE
        return Change.CUT

    def _last_bytes(self) -> bytes:
        return self.read(max(0, self.size - TAIL_BYTES), self.size)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


class RowReader:
    """Finds rows from any offset, forwards and backwards, through a window onto the file. For one thread."""

    def __init__(self, file: LineFile, window_bytes: int = WINDOW_BYTES) -> None:
        self._file = file
        self._window_bytes = window_bytes
        self._data = b""
        self._base = 0
        self._size = -1

    def window(self, start: int, end: int) -> tuple[bytes, int]:
        """Bytes that have [start, end), as far as the file does, and the offset that they begin at."""
        size = self._file.size
        have = self._base + len(self._data)
        if not self._base <= start or (end > have and (have < self._size or size != self._size)):
            around = max(0, self._window_bytes - (end - start)) // 2
            self._base = max(0, start - around)
            self._data = self._file.read(self._base, min(size, end + around))
            self._size = size
        return self._data, self._base

    def forget(self) -> None:
        """The file was cut: what is in the window may be gone."""
        self._data, self._base, self._size = b"", 0, -1

    def end_of(self, start: int) -> int:
        """The offset behind the row that starts at `start`, its newline included."""
        size = self._file.size
        border = -(-start // BLOCK_BYTES) * BLOCK_BYTES + BLOCK_BYTES  # the first at which a block can be full
        data, base = self.window(start, min(size, border + 1))
        newline = data.find(b"\n", start - base, border + 1 - base)
        if newline >= 0:
            return base + newline + 1
        return min(border, size)

    def start_of(self, offset: int) -> int:
        """The start of the row that has the byte at `offset`, 0 <= offset < size."""
        border = offset // BLOCK_BYTES * BLOCK_BYTES
        low = max(0, border - 2 * BLOCK_BYTES)
        data, base = self.window(low, offset + 1)
        found = data.rfind(b"\n", low - base, offset - base)
        start = base + found + 1 if found >= 0 else low
        for full in (border, border - BLOCK_BYTES):
            block = full - BLOCK_BYTES
            if block < 0 or start > block:
                continue
            if data[full - base : full - base + 1] != b"\n":
                return full
        return start

    def before(self, start: int) -> int | None:
        """The start of the row that ends at `start`."""
        return self.start_of(start - 1) if start > 0 else None

    def bytes_of(self, start: int) -> bytes:
        """The row that starts at `start`, with its newline if it has one."""
        end = self.end_of(start)
        data, base = self.window(start, end)
        return data[start - base : end - base]

    def first_from(self, offset: int) -> int:
        """The start of the first row that starts at or behind `offset`; the size if there is none."""
        if offset <= 0 or offset >= self._file.size:
            return max(0, min(offset, self._file.size))
        start = self.start_of(offset)
        return start if start == offset else self.end_of(start)
