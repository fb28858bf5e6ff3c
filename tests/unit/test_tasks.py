"""What takes things back is done before its caller goes on, however often that is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from vmtui.host.tasks import uncancelled


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
