"""The verbs of a person on one resource, where they are more than one act of its backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from vmtui.core.backend import Killable, Pausable, Progress
from vmtui.core.errors import NotFound, NotPermitted, OperationFailed
from vmtui.core.lifecycle import Action
from vmtui.core.resource import Kind, Ref, Status
from vmtui.engine.operations import Operations
from vmtui.engine.store import Applied, Intent
from vmtui.profile import graph
from vmtui.profile.schema import Declared


async def carry_out(
    operations: Operations,
    row: Applied | None,
    status: Status,
    action: Action,
    *,
    grace_s: float | None,
    report: Callable[[Progress], None],
) -> None:
    """Start, stop, restart, kill, pause or resume what the transition table permits. Raises Fault."""
    ref = status.ref
    backend = operations.registry.get(ref.kind, status.backend)
    if action in (Action.START, Action.STOP, Action.RESTART):
        if row is None:
            raise NotPermitted(f"{ref} is not in the database", hint="apply its profile: vmtui --profile FILE")
        desired = operations.typed(row)
        if action is not Action.START:
            await operations.stop(desired, grace_s=grace_s)
        if action is not Action.STOP:
            operations.store.set_restarts(ref, 0)
            await operations.start(desired, report)
    elif action is Action.KILL and isinstance(backend, Killable):
        operations.store.set_intent(ref, Intent.STOPPED)
        await backend.kill(ref)
    elif action is Action.PAUSE and isinstance(backend, Pausable):
        await backend.pause(ref)
    elif action is Action.RESUME and isinstance(backend, Pausable):
        await backend.resume(ref)
    else:
        raise NotPermitted(f"{action} is not a verb of its own")


async def delete(operations: Operations, ref: Ref, row: Applied | None, status: Status | None, *, purge: bool) -> None:
    """Remove one resource. Raises NotFound, NotPermitted (data without `purge`, or others refer to it)."""
    store = operations.store
    if row is None and status is None:
        raise NotFound(f"there is no {ref}", hint="vmtui ls")
    if ref.kind is Kind.DISK and not purge:
        raise NotPermitted(f"{ref} is data", hint=f"vmtui rm --purge {ref}")
    users = [] if ref.kind.runs else [str(other) for other in _users(operations, ref)]
    if users:
        raise NotPermitted(f"{ref} is used by {', '.join(users)}", hint=f"vmtui rm {users[0]}")
    backend = status.backend if status else row.desired.backend if row else ""
    store.release_reserve()
    await operations.delete(ref, backend, row, purge=purge)
    store.record(ref, Action.DELETE, "done")
    if store.profiles():
        with contextlib.suppress(OperationFailed):  # the next apply says so, if there is still no room
            store.make_reserve()


def _users(operations: Operations, ref: Ref) -> list[Ref]:
    rows = operations.store.of_profile(ref.profile)
    declared = [Declared(ref=other, spec=row.desired.spec) for other, row in rows.items()]
    return [edge.consumer for edge in graph.edges(declared) if edge.provider == ref]
