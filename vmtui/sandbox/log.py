"""The log: time stamp, stream, F (full line) or P (a part of one), text; the lines that conmon writes for containers.

Never more on disk than `max_bytes`: at half of it the file becomes `log.1`, and the one before goes.
"""

from __future__ import annotations

import os
import time

MAX_LINE_BYTES = 8 << 10  # a longer line is written in parts


class Log:
    """Owns the file. Appends to what earlier runs left."""

    def __init__(self, path: str, max_bytes: int) -> None:
        """Raises OSError."""
        self._path = path
        self._max_file_bytes = max(max_bytes // 2, 2 * MAX_LINE_BYTES)
        self._partial = {"stdout": b"", "stderr": b""}
        self._open_lines: set[str] = set()  # streams whose last entry is a part
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Take what the module wrote. Raises OSError (no space); the data is then lost, the log is not."""
        lines = (self._partial[stream] + data).split(b"\n")
        self._partial[stream] = rest = lines.pop()
        entries = [(part, tag) for line in lines for part, tag in _parts(line)]
        if len(rest) >= MAX_LINE_BYTES:
            entries += [(part, b"P") for part, _ in _parts(rest)]
            self._partial[stream] = b""
        self._append(stream, entries)
        if entries:
            (self._open_lines.add if entries[-1][1] == b"P" else self._open_lines.discard)(stream)

    def close(self) -> None:
        """Write what has no newline yet, and close. Raises OSError."""
        try:
            for stream, rest in self._partial.items():
                if rest or stream in self._open_lines:
                    self._append(stream, [(rest, b"F")])
        finally:
            os.close(self._fd)

    def _append(self, stream: str, entries: list[tuple[bytes, bytes]]) -> None:
        if not entries:
            return
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"
        head = f"{stamp} {stream} ".encode()
        pending = bytearray()
        for text, tag in entries:
            line = b"%s%s %s\n" % (head, tag, text)
            if self._size + len(pending) + len(line) > self._max_file_bytes:
                self._put(pending)
                pending = bytearray()
                os.close(self._fd)
                os.rename(self._path, self._path + ".1")
                self._open()
            pending += line
        self._put(pending)

    def _put(self, data: bytearray) -> None:
        view = bytes(data)
        while view:
            written = os.write(self._fd, view)
            self._size += written
            view = view[written:]


def _parts(line: bytes) -> list[tuple[bytes, bytes]]:
    """A line in parts of bounded length, the last one marked full."""
    cuts = [line[at : at + MAX_LINE_BYTES] for at in range(0, len(line), MAX_LINE_BYTES)] or [b""]
    return [(part, b"P") for part in cuts[:-1]] + [(cuts[-1], b"F")]
