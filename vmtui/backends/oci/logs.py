"""Reads a container's log as conmon writes it: Kubernetes' CRI form, TIME STREAM F|P TEXT.

A `P` line goes on in the next line of its stream. The texts are hostile: any bytes, any length, any amount.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from vmtui.backends.oci.places import Places
from vmtui.backends.records import RECORD
from vmtui.core.backend import LogLine
from vmtui.host.inotify import Watch

LINE = re.compile(rb"(\S{10,64}) (stdout|stderr) ([FP]) ?(.*)", re.DOTALL)
MAX_LINE_BYTES = 64 << 10  # a longer one is told in pieces
CHUNK_BYTES = 256 << 10


class Parser:
    """Bytes of a log in pieces to whole lines."""

    def __init__(self) -> None:
        self._rest = b""
        self._partial: dict[str, tuple[float | None, bytes]] = {}

    def feed(self, data: bytes) -> Iterator[LogLine]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:  # no conmon wrote this
            lines.append(self._rest)
            self._rest = b""
        for raw in lines:
            yield from self._line(raw)

    def _line(self, raw: bytes) -> Iterator[LogLine]:
        match = LINE.fullmatch(raw)
        if match is None:
            if raw:
                yield LogLine(text=_text(raw))
            return
        stream = match[2].decode()
        at, begun = self._partial.pop(stream, (_time(match[1]), b""))
        text = begun + match[4]
        if match[3] == b"P" and len(text) < MAX_LINE_BYTES:
            self._partial[stream] = (at, text)
        else:
            yield LogLine(text=_text(text), at=at, stream=stream)

    def end(self) -> Iterator[LogLine]:
        """What has no newline yet."""
        for stream, (at, text) in self._partial.items():
            yield LogLine(text=_text(text), at=at, stream=stream)
        self._partial.clear()


def entry(raw: bytes) -> LogLine:
    """One line of the file by itself; what conmon did not write is told as it is."""
    match = LINE.fullmatch(raw)
    if match is None:
        return LogLine(text=_text(raw))
    return LogLine(text=_text(match[4]), at=_time(match[1]), stream=match[2].decode(), partial=match[3] == b"P")


def _text(data: bytes) -> str:
    return data.removesuffix(b"\r").decode("utf-8", "replace")


def _time(text: bytes) -> float | None:
    try:
        return datetime.fromisoformat(text.decode("ascii")).timestamp()
    except (ValueError, OverflowError):
        return None


def last_lines(log: Path, older: Path, count: int | None) -> list[LogLine]:
    """The last `count` lines (None: all) of a log and of the file that it continues."""
    file = _open(log)
    with file or contextlib.nullcontext():
        return _until(file, _end(file), older, count)


def _last(file: BinaryIO, size: int, count: int | None) -> list[LogLine]:
    window = size if count is None else min(size, CHUNK_BYTES)
    while True:
        file.seek(size - window)
        if window < size:
            file.readline()  # it may begin in the middle of one
        parser = Parser()
        lines = [*parser.feed(file.read(size - file.tell())), *parser.end()]
        if count is None or len(lines) > count or window == size:
            return lines if count is None else lines[len(lines) - min(count, len(lines)) :]
        window = min(size, window * 4)


async def read(places: Places, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
    """The last `tail` lines, then, with `follow`, new ones until the container is deleted."""
    watch = Watch() if follow else None
    file: BinaryIO | None = None
    try:
        if watch is not None:
            watch.add(places.resource, writes=True)  # before the first read, so that nothing falls between
        file = _open(places.log)
        end = _end(file)
        for line in _until(file, end, places.old_log, tail):
            yield line
        if watch is None:
            return
        if file is not None:
            file.seek(end)
        async with aclosing(watch.changes()) as changes:  # type: ignore[type-var]
            async with aclosing(_follow(places, changes, file)) as lines:
                async for line in lines:
                    yield line
    finally:
        if file is not None:
            file.close()
        if watch is not None:
            watch.close()


def _end(file: BinaryIO | None) -> int:
    """Where its last whole line ends, in bytes; 0 without a file."""
    if file is None:
        return 0
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - MAX_LINE_BYTES))
    begun = file.read(size - file.tell()).rpartition(b"\n")
    return size - len(begun[2]) if begun[1] else size


def _until(file: BinaryIO | None, end: int, older: Path, count: int | None) -> list[LogLine]:
    """The last `count` lines before `end` of `file`, and of `older`, unless that is now what `file` was."""
    lines = [] if file is None else _last(file, end, count)
    before = _open(older) if count is None or len(lines) < count else None
    if before is not None:
        with before:
            if file is None or not _same(file, before):
                wanted = None if count is None else count - len(lines)
                lines = _last(before, os.fstat(before.fileno()).st_size, wanted) + lines
    return lines


async def _follow(places: Places, changes: AsyncIterator[Path], file: BinaryIO | None) -> AsyncGenerator[LogLine, None]:
    parser = Parser()
    try:
        async for path in changes:
            if path.name == RECORD and not (places.resource / RECORD).exists():
                return
            if path.name != places.log.name and file is not None:
                continue
            while True:
                while file is not None and (data := file.read(CHUNK_BYTES)):
                    for line in parser.feed(data):
                        yield line
                current = _open(places.log)
                if file is not None and current is not None and _same(file, current):
                    current.close()
                    break
                if current is None:
                    break
                if file is not None:
                    file.close()
                file = current  # conmon began a new file
    finally:
        if file is not None:
            file.close()


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))
