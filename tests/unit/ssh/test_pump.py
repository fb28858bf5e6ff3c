"""Descriptors as streams: what waits is bounded, and an end is an end."""

from __future__ import annotations

import asyncio
import os
import tty

import pytest

from vmtui.ssh.pump import READ_BYTES, Sink, Source

LIMIT = 64 << 10


async def test_what_comes_is_read_and_then_the_end() -> None:
    reading, writing = os.pipe()
    source = Source(reading)
    waiting = asyncio.create_task(source.read())
    await asyncio.sleep(0)
    os.write(writing, b"one")
    assert await waiting == b"one"
    os.write(writing, b"two")
    os.close(writing)
    assert await source.read() == b"two"
    assert await source.read() == b""
    source.close()


async def test_a_terminal_that_nobody_has_open_any_more_is_at_its_end() -> None:
    master, slave = os.openpty()
    source = Source(master)
    os.write(slave, b"last words")
    os.close(slave)
    assert await source.read() == b"last words"
    assert await source.read() == b""
    source.close()


async def test_no_more_is_waited_for_once_nobody_writes() -> None:
    reading, writing = os.pipe()
    source = Source(reading)
    os.write(writing, b"left")
    source.finish()
    assert await source.read() == b"left"
    assert await source.read() == b""
    waiting = asyncio.create_task(source.read())
    assert await waiting == b""
    os.close(writing)
    source.close()


async def test_a_reader_that_waits_hears_that_it_is_closed() -> None:
    reading, writing = os.pipe()
    source = Source(reading)
    waiting = asyncio.create_task(source.read())
    await asyncio.sleep(0)
    source.close()
    assert await waiting == b""
    os.close(writing)


async def test_a_reader_that_reads_nothing_makes_the_writer_wait() -> None:
    reading, writing = os.pipe()
    sink = Sink(writing, LIMIT)
    fed = 0
    for _ in range(100):
        waiting = asyncio.create_task(sink.drained())
        await asyncio.sleep(0)
        if not waiting.done():
            break
        sink.feed(b"x" * 32768)
        fed += 32768
    assert sink.pending_bytes < LIMIT + 32768
    read = 0
    while read < fed:
        read += len(await asyncio.to_thread(os.read, reading, READ_BYTES))
    await waiting
    assert sink.pending_bytes == 0
    sink.close()
    os.close(reading)


async def test_the_end_comes_after_all_that_was_written() -> None:
    reading, writing = os.pipe()
    sink = Sink(writing, LIMIT)
    sink.feed(b"x" * 200_000)
    sink.end()
    sink.feed(b"too late")
    got = b""
    while data := await asyncio.to_thread(os.read, reading, READ_BYTES):
        got += data
    assert got == b"x" * 200_000
    os.close(reading)


async def test_what_nobody_will_read_is_dropped_and_nobody_waits_for_it() -> None:
    reading, writing = os.pipe()
    sink = Sink(writing, LIMIT)
    sink.feed(b"x" * 300_000)
    assert sink.pending_bytes > LIMIT
    os.close(reading)
    await sink.drained()
    assert sink.pending_bytes == 0
    sink.feed(b"more")
    sink.close()


@pytest.mark.parametrize("pieces", [1, 7])
async def test_ten_megabytes_pasted_into_a_program_that_never_reads_are_not_kept(pieces: int) -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    sink = Sink(master, LIMIT)
    given = 0
    while given < 10 << 20:
        waiting = asyncio.create_task(sink.drained())
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        if not done:
            waiting.cancel()
            break
        sink.feed(b"y" * 4096 * pieces)
        given += 4096 * pieces
    assert given < 1 << 20
    assert sink.pending_bytes <= LIMIT + 4096 * pieces
    sink.close()
    os.close(slave)
