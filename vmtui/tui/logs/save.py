"""Writes what a log view shows to a file: all or nothing, and never over another file unasked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from vmtui.tui.logs.files import FileLog
from vmtui.tui.logs.merge import Merge

SLICE_S = 0.008  # of work on the loop at once
CHUNK_BYTES = 1 << 20


async def save(path: Path, chunks: AsyncIterator[bytes], *, overwrite: bool, told: Callable[[int], None]) -> int:
    """Write `chunks`; how many bytes. Raises OSError (FileExistsError without `overwrite`); nothing is left then."""
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    size = 0
    try:
        with os.fdopen(fd, "wb") as file:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
                size += len(chunk)
                told(size)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        if not overwrite:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # fails where there is something
        os.replace(temporary, path)
        return size
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


async def raw(merge: Merge, names: Sequence[str]) -> AsyncIterator[bytes]:
    """The bytes of the rows that `merge` has now, as they were written; of several logs with the name before each."""
    pending = bytearray()
    end = merge.end()
    begun = time.perf_counter()
    for row in merge.forwards(merge.start()):
        if row.start >= end[row.log]:  # written meanwhile
            if all(place >= last for place, last in zip(row.before, end, strict=True)):
                break
            continue
        data = merge.logs[row.log].raw(row.start)
        if names:
            pending += names[row.log].encode() + b"\t"
            data = data if data.endswith(b"\n") else data + b"\n"
        pending += data
        if len(pending) >= CHUNK_BYTES:
            yield bytes(pending)
            pending.clear()
            begun = time.perf_counter()
        elif time.perf_counter() - begun > SLICE_S:
            await asyncio.sleep(0)
            begun = time.perf_counter()
    if pending:
        yield bytes(pending)


async def whole(log: FileLog) -> AsyncIterator[bytes]:
    """The bytes of all files of a log, without looking at its rows."""
    for part in log.parts():
        for begin in range(part.begin, part.end, CHUNK_BYTES):
            yield await asyncio.to_thread(log.bytes_of, begin, min(part.end, begin + CHUNK_BYTES))
