"""The time that passes while a recording plays."""

from __future__ import annotations

import asyncio

import pytest

from vmtui.headless.recordings import GONE, PAUSE, QUIT, passes


def queue(*typed: bytes) -> asyncio.Queue[bytes]:
    keys: asyncio.Queue[bytes] = asyncio.Queue()
    for each in typed:
        keys.put_nowait(each)
    return keys


async def test_it_passes_by_itself() -> None:
    assert await passes(queue(), 0.01)
    assert await passes(queue(), 0.0)


@pytest.mark.parametrize("key", sorted(QUIT))
async def test_a_key_or_the_end_of_the_terminal_ends_it(key: bytes) -> None:
    assert not await passes(queue(key), 60)
    assert not await passes(queue(PAUSE, key), 60)


async def test_other_keys_and_what_a_terminal_answers_mean_nothing() -> None:
    assert await passes(queue(b"x", b"\x1b[6n q", b"\x1b[?1;2c", b"\xff"), 0.01)


async def test_space_stops_it_until_another_one() -> None:
    keys = queue(PAUSE, b"x")
    passing = asyncio.create_task(passes(keys, 0.01))
    await asyncio.sleep(0.1)
    assert not passing.done()
    keys.put_nowait(PAUSE)
    assert await passing


async def test_what_was_left_of_it_is_left_after_a_stop() -> None:
    keys = queue(PAUSE, PAUSE, GONE)
    assert not await passes(keys, 60)
