"""Reads the log that the sandbox program writes: `log.1`, then `log`, in the lines of conmon's k8s-file driver."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from vmtui.backends.wasm.state import LOG
from vmtui.core.backend import LogLine
from vmtui.host.inotify import Watch

TAIL_BYTES = 1 << 20  # how far back `tail` looks
MAX_LINE_CHARS = 64 << 10  # parts are joined up to this


class Parser:
    """Entries to lines. Bytes that are no entry are passed on as they are: better odd than lost."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}

    def line(self, raw: bytes) -> LogLine | None:
        """The line that an entry completes."""
        part = _parse(raw)
        if part is None:
            return _as_it_is(raw)
        whole = self._parts.pop(part.stream, "") + part.text
        if part.partial and len(whole) < MAX_LINE_CHARS:
            self._parts[part.stream] = whole
            return None
        return LogLine(text=whole, at=part.at, stream=part.stream)

    def unfinished(self) -> list[LogLine]:
        """What has parts and no end yet."""
        return [LogLine(text=text, stream=stream) for stream, text in self._parts.items()]


def entry(raw: bytes) -> LogLine:
    """One entry by itself: a line or a part of one."""
    return _parse(raw) or _as_it_is(raw)


def _parse(raw: bytes) -> LogLine | None:
    fields = raw.split(b" ", 3)
    if len(fields) < 4 or fields[1] not in (b"stdout", b"stderr") or fields[2] not in (b"F", b"P"):
        return None
    text, stream = fields[3].decode("utf-8", "replace"), fields[1].decode()
    return LogLine(text=text, at=_seconds(fields[0]), stream=stream, partial=fields[2] == b"P")


def _as_it_is(raw: bytes) -> LogLine:
    return LogLine(text=raw.decode("utf-8", "replace"))


def _seconds(stamp: bytes) -> float | None:
    """2026-01-31T12:00:00.123456789Z; datetime takes six digits of nine."""
    try:
        return datetime.fromisoformat(stamp[:26].decode("ascii") + "+00:00").timestamp()
    except ValueError:
        return None


class _Tail:
    """The current log file, read as it grows, over rotations."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG
        self._file: BinaryIO | None = None
        self._rest = b""

    def entries(self) -> Iterator[bytes]:
        """What has come since the last call."""
        while True:
            if self._file is None:
                try:
                    self._file = self._path.open("rb")
                except FileNotFoundError:
                    return
            rotated = self._rotated(self._file)  # before reading: what came until then is still read
            while data := self._file.read(1 << 16):
                *whole, self._rest = (self._rest + data).split(b"\n")
                yield from whole
            if not rotated:
                return
            self.close()

    def _rotated(self, file: BinaryIO) -> bool:
        try:
            return os.stat(self._path).st_ino != os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return False

    def skip(self, offset: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._file = self._path.open("rb")
            self._file.seek(offset)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


async def read(directory: Path, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
    """See HasLogs.logs. Ends, with `follow`, when the folder is removed."""
    parser, current, watch = Parser(), _Tail(directory), Watch()
    try:
        watch.add(directory, writes=True)
        older = _older(directory, current, bounded=tail is not None)
        lines: Iterator[LogLine] = (line for entry in older if (line := parser.line(entry)) is not None)
        if not follow:
            lines = itertools.chain(lines, _after(parser))
        for line in lines if tail is None else deque(lines, maxlen=tail):
            yield line
        if not follow:
            return
        async with contextlib.aclosing(watch.changes()) as changes:  # type: ignore[type-var]
            while directory.exists():
                for entry in current.entries():
                    if (line := parser.line(entry)) is not None:
                        yield line
                await anext(changes)
    finally:
        current.close()
        watch.close()


def _after(parser: Parser) -> Iterator[LogLine]:
    """Evaluated when all before is read."""
    yield from parser.unfinished()


def _older(directory: Path, current: _Tail, *, bounded: bool) -> Iterator[bytes]:
    """What is there now: of the rotated file, then of the current one; the last TAIL_BYTES if bounded."""
    left = TAIL_BYTES if bounded else None
    size = _size(directory / LOG)
    before = None if left is None else max(0, left - size)
    yield from _last(directory / f"{LOG}.1", before)
    if left is not None and size > left:
        current.skip(size - left)
        entries = current.entries()
        next(entries, None)  # cut off in its middle
        yield from entries
        return
    yield from current.entries()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _last(path: Path, limit: int | None) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = 0 if limit is None else max(0, size - limit)
            file.seek(start)
            if start:
                file.readline()
            for entry in file:
                yield entry.rstrip(b"\n")
    except FileNotFoundError:
        return
