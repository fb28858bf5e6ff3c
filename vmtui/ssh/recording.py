"""A session's output as asciicast v2. Never its input, which has passwords."""

from __future__ import annotations

import codecs
import errno
import os
import time
from pathlib import Path

import msgspec

from vmtui.engine import recordings
from vmtui.engine.recordings import OUTPUT, RESIZE, Event, Header
from vmtui.ssh.session import Request

KEPT_FREE_BYTES = 256 << 20  # of the disk, or a twentieth if that is less: recordings are not what fills it
LOOK_EVERY_BYTES = 1 << 20
FULL = "\r\n\x1b[0m[the recording ends here: it has reached its size]\r\n"


class Recording:
    """Owns the file. Every call may raise OSError; the recording is closed then."""

    def __init__(self, folder: Path, request: Request, session: str, at: float, limit_bytes: int) -> None:
        """Raises OSError."""
        assert request.size is not None
        rows, columns = request.size
        person = request.person
        header = Header(
            version=recordings.VERSION,
            width=columns,
            height=rows,
            timestamp=int(at),
            title=" ".join(("vmtui", *request.argv)),
            env={
                "TERM": request.term,
                recordings.SESSION: session,
                recordings.PERSON: person.name,
                recordings.ROLE: request.role.name,
                recordings.KEY: person.key,
                recordings.ORIGIN: person.origin,
            },
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _leave_room(folder)
        self.path = folder / recordings.file_name(at, person.name, session)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o600)
        self._began = time.monotonic()
        self._left = limit_bytes
        self._look_at = limit_bytes - LOOK_EVERY_BYTES
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line(msgspec.json.encode(header))

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def output(self, data: bytes) -> None:
        if text := self._decoder.decode(data):
            self._event(OUTPUT, text)

    def resize(self, rows: int, columns: int) -> None:
        self._event(RESIZE, f"{columns}x{rows}")

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _event(self, code: str, data: str) -> None:
        if self.closed:
            return
        at_s = round(time.monotonic() - self._began, 6)
        line = msgspec.json.encode(Event(at_s, code, data))
        if len(line) >= self._left:
            self._line(msgspec.json.encode(Event(at_s, OUTPUT, FULL)))
            self.close()
        else:
            self._line(line)

    def _line(self, line: bytes) -> None:
        rest = memoryview(line + b"\n")
        self._left -= len(rest)
        try:
            if self._left < self._look_at:
                self._look_at = self._left - LOOK_EVERY_BYTES
                _leave_room(self._fd)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            self.close()
            raise


def _leave_room(where: Path | int) -> None:
    """Raises OSError, ENOSPC, where there is none to spare."""
    disk = os.statvfs(where)
    if disk.f_bavail * disk.f_frsize < min(KEPT_FREE_BYTES, disk.f_blocks * disk.f_frsize // 20):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
