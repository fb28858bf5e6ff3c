"""What happens when a workload ends by itself: its parent runs `vmtui reap REF`, and no daemon is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from vmtui.core.errors import Fault, NotFound
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Ref, Status
from vmtui.core.specs import Restart, Workload
from vmtui.engine.operations import Operations
from vmtui.engine.store import Applied, Intent

FIRST_DELAY_S = 0.1  # as Docker: doubled after each short run, at most a minute, forgotten after a long run
LONGEST_DELAY_S = 60.0
LONG_RUN_S = 10.0
LOCK_WAIT_S = 900.0  # an apply may pull images for minutes; the end of this workload is not lost meanwhile

Changing = Callable[..., AbstractAsyncContextManager[None]]


def restarts(policy: Restart, status: Status) -> bool:
    """Whether the policy starts it again after this end."""
    if policy in (Restart.ALWAYS, Restart.UNLESS_STOPPED):
        return True
    return policy is Restart.ON_FAILURE and (status.exit is None or status.exit.code != 0)


def delay_s(attempt: int) -> float:
    """The pause before the `attempt`-th start in a row, from 0."""
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempt, 20))


async def reap(operations: Operations, changing: Changing, ref: Ref) -> None:
    """Restart it by its policy after a delay, or unplug it. Nothing happens to what was stopped on purpose."""
    store = operations.store
    row = store.get(ref)
    if row is None or row.intent is not Intent.UP or not isinstance(row.desired.spec, Workload):
        return
    status = await _ended(operations, row)
    if status is None:
        return
    code = f"code {status.exit.code}" if status.exit else status.phase
    store.record(ref, "exit", status.phase, f"{code} {status.exit.reason if status.exit else ''}".strip())
    again = restarts(row.desired.spec.restart, status)
    if again:
        attempt = 0 if _ran_s(status) > LONG_RUN_S else row.restarts
        store.set_restarts(ref, attempt + 1)
        await asyncio.sleep(delay_s(attempt))
    async with changing(f"reap {ref}", wait_s=LOCK_WAIT_S):
        row = store.get(ref)
        if row is None or row.intent is not Intent.UP or await _ended(operations, row) is None:
            return
        desired = operations.typed(row)
        await operations.wiring.detach(desired)
        if not again:
            return
        try:
            await operations.start(desired, lambda _: None)
        except Fault as fault:
            store.record(ref, "restart", "failed", str(fault))
            raise
        store.record(ref, "restart", "done", f"attempt {row.restarts}")


def _ran_s(status: Status) -> float:
    return status.exit.at - status.started_at if status.exit and status.started_at else 0.0


async def _ended(operations: Operations, row: Applied) -> Status | None:
    """Its status if it has ended by itself, None otherwise."""
    try:
        status = await operations.backend(row.desired).inspect(row.desired.ref)
    except NotFound:
        return None
    return status if status.phase in (Phase.EXITED, Phase.BROKEN) else None
