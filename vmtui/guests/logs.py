"""The serial log: serial.log, and before it serial.log.1, as its writer rotates them."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from vmtui.core.backend import LogLine
from vmtui.guests.run import LOG
from vmtui.host.inotify import Watch

MAX_LINE_BYTES = 64 << 10  # a longer one is cut in pieces


class Follower:
    """Reads a file as it grows, and the next one after it was renamed or made anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """The whole lines that have come since the last call."""
        while self._file is not None or self._open():
            assert self._file is not None
            while data := self._file.read(1 << 16):
                *whole, self._rest = (self._rest + data).split(b"\n")
                yield from whole
                if len(self._rest) > MAX_LINE_BYTES:
                    yield self._rest
                    self._rest = b""
            if self._is_current():
                return
            self.close()

    def unfinished(self) -> bytes:
        """The line that has no end yet, taken."""
        rest, self._rest = self._rest, b""
        return rest

    def _open(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            self._file = self._path.open("rb")
        return self._file is not None

    def _is_current(self) -> bool:
        assert self._file is not None
        opened = os.fstat(self._file.fileno())
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        return (found.st_ino, found.st_dev) == (opened.st_ino, opened.st_dev)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def entry(raw: bytes) -> LogLine:
    """One line of the file."""
    return LogLine(text=raw.rstrip(b"\r").decode("utf-8", "replace"))


async def read(folder: Path, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
    """See HasLogs.logs. Ends, with `follow`, when the folder is gone."""
    current, watch = Follower(folder / LOG), Watch()
    try:
        watch.add(folder, writes=True)
        older = Follower(folder / f"{LOG}.1")
        try:
            before = [*older.lines(), *current.lines()]
        finally:
            older.close()
        if not follow and (rest := current.unfinished()):
            before.append(rest)
        for raw in before if tail is None else deque(before, maxlen=tail):
            yield entry(raw)
        if not follow:
            return
        async with contextlib.aclosing(watch.changes()) as changes:  # type: ignore[type-var]
            while folder.exists():
                for raw in current.lines():
                    yield entry(raw)
                await anext(changes)
    finally:
        current.close()
        watch.close()
