"""What is left of what a test made, looked at until nothing is: processes that were told to end take their time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from tests.support.hostview import HostView
from vmtui.core.backend import Context
from vmtui.core.resource import Ref

LIMIT_S = 60.0


async def remains(look: Callable[[], object]) -> str:
    """What `look` still shows after a minute, as text; "" as soon as it shows nothing."""
    deadline = time.monotonic() + LIMIT_S
    while (seen := str(look())) and time.monotonic() < deadline:  # noqa: ASYNC110 - processes
        await asyncio.sleep(0.05)
    return seen


async def remains_of(context: Context, refs: Iterable[Ref]) -> str:
    """The same of one workspace."""
    return await remains(lambda: HostView.of(context, refs))
