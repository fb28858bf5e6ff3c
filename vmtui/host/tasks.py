"""Work that is done to its end, whatever happens to who asked for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


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
