"""The serial log: a file that is renamed and begun anew when it is large, so that two at most are kept."""

from __future__ import annotations

import os
from contextlib import suppress

LOG_BYTES = 4 << 20


class Log:
    """Appends. A disk that is full loses lines, never the VM."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._path = path
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, data: bytes) -> None:
        try:
            if self._size + len(data) > LOG_BYTES:
                with suppress(FileNotFoundError):  # somebody removed it, or it could not be begun anew the last time
                    os.rename(self._path, f"{self._path}.1")
                fresh = self._open()
                os.close(self._fd)
                self._fd, self._size = fresh, 0
            self._size += os.write(self._fd, data)
        except OSError:
            pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
