"""Work that is done to its end, whatever happens to who asked for it; and long work that lets others have a turn."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
TURN_S = 0.001  # several that work at once have a turn each between two frames


class Turn:
    """For loops that compute: `if turn.long: await turn.give()` lets the event loop go on about every millisecond."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = time.perf_counter()

    @property
    def long(self) -> bool:
        return time.perf_counter() - self._since > TURN_S

    async def give(self) -> None:
        await asyncio.sleep(0)
        self._since = time.perf_counter()


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
