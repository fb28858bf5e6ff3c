"""What takes things back is done before its caller goes on, however often that is cancelled; who computes gives way."""

from __future__ import annotations

import asyncio
import time

import pytest

from vmtui.host.tasks import Turn, uncancelled


async def test_it_ends_before_its_caller_goes_on() -> None:
    steps: list[str] = []
    begun = asyncio.Event()

    async def undo() -> str:
        begun.set()
        for _ in range(5):
            await asyncio.sleep(0.01)
        steps.append("undone")
        return "done"

    async def act() -> None:
        try:
            raise ValueError("it failed")
        except ValueError:
            assert await uncancelled(undo()) == "done"
            steps.append("went on")
            raise

    task = asyncio.create_task(act())
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(ValueError, match="it failed"):
        await task
    assert steps == ["undone", "went on"]


async def test_its_own_failure_is_raised() -> None:
    async def undo() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await uncancelled(undo())


async def test_who_compute_share_the_time_between_two_turns_of_the_others() -> None:
    gaps: list[float] = []
    done = 0

    async def compute() -> None:
        nonlocal done
        turn = Turn()
        for _ in range(40):
            until = time.thread_time() + 0.0002
            while time.thread_time() < until:
                pass
            done += 1
            if turn.long:
                await turn.give()

    async def other() -> None:
        last = time.thread_time()
        while done < 20 * 40:
            await asyncio.sleep(0)
            now = time.thread_time()
            gaps.append(now - last)
            last = now

    watcher = asyncio.create_task(other())
    await asyncio.gather(*(compute() for _ in range(20)))
    await watcher
    assert len(gaps) > 10
    assert sorted(gaps)[len(gaps) // 2] < 0.02, "twenty at once take twenty times as long"
