"""What is left of what a test made, once the processes that were told to end have taken their time for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from tests.support.hostview import HostView
from vmtui.core.backend import Context
from vmtui.core.resource import Ref

LIMIT_S = 60.0


async def remains(look: Callable[[], object]) -> str:
    """What `look` shows, as text, once no process is in it; after a minute with them."""
    deadline = time.monotonic() + LIMIT_S
    while "processes: " in (seen := str(look())) and time.monotonic() < deadline:  # noqa: ASYNC110 - processes
        await asyncio.sleep(0.05)
    return seen


async def remains_of(context: Context, refs: Iterable[Ref]) -> str:
    """The same of one workspace."""
    return await remains(lambda: HostView.of(context, refs))
