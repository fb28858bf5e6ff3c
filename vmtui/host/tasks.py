"""Work that is done to its end, whatever happens to who asked for it; and long work that lets others have a turn."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")
TURN_S = 0.002  # of all who compute, between two turns of the others


class Turn:
    """For loops that compute: `if turn.long: await turn.give()` lets the event loop go on every other millisecond.

    All such loops of one event loop share the time: who comes after another that has used it up does one step.
    """

    _since: ClassVar[float] = 0.0
    _ending_in: ClassVar[asyncio.AbstractEventLoop | None] = None

    @property
    def long(self) -> bool:
        return time.perf_counter() - Turn._since > TURN_S

    async def give(self) -> None:
        loop = asyncio.get_running_loop()
        if Turn._ending_in is not loop:
            Turn._ending_in = loop
            loop.call_soon(self._begin)  # before any of those that wait below
        await asyncio.sleep(0)

    @staticmethod
    def _begin() -> None:
        Turn._since = time.perf_counter()
        Turn._ending_in = None


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` to its end although the calling task is, or meanwhile gets, cancelled: for what takes things back.

    asyncio.shield alone returns at once then, and the work would end with the event loop. A cancellation that comes
    meanwhile is not raised again: the caller goes on to raise what made it take things back.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()
