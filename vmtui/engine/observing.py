"""What the host shows now: everything, or only what is said to have changed, completed from one another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable

from vmtui.core.errors import NotFound
from vmtui.core.lifecycle import UP
from vmtui.core.resource import Kind, Port, Ref, Status
from vmtui.engine import endpoints
from vmtui.engine.registry import Registry
from vmtui.engine.store import Store
from vmtui.host.tasks import Turn

AT_ONCE = 16  # resources inspected together
MEMBERS = (Kind.VM, Kind.CONTAINER)  # kinds that have addresses on networks, and published ports


class Observer:
    """Remembers of each network whom it had as members, to tell whose addresses changed with it; nothing else."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self._registry = registry
        self._store = store
        self._members: dict[Ref, tuple[Port, ...]] = {}

    async def complete(self, found: Iterable[Status]) -> tuple[Status, ...]:
        """Everything that was scanned, with addresses and endpoints. Lets others have a turn."""
        turn = Turn()
        statuses = list(found)
        members = {status.ref: status.ports for status in statuses if status.ref.kind is Kind.NETWORK}
        if members:
            self._members = members
        plugged: dict[Ref, list[Port]] = {}
        for ports in members.values():
            for port in ports:
                plugged.setdefault(port.consumer, []).append(port)
            if turn.long:
                await turn.give()
        published = {}
        for profile in self._store.profiles():
            published.update(self._store.published(profile))
            if turn.long:
                await turn.give()
        for at, status in enumerate(statuses):
            if status.ref.kind in MEMBERS and status.phase in UP:
                statuses[at] = endpoints.completed(status, plugged.get(status.ref, ()), published.get(status.ref))
            if turn.long:
                await turn.give()
        return tuple(statuses)

    async def refresh(self, refs: Collection[Ref]) -> dict[Ref, Status | None]:
        """See Workspace.refresh."""
        found = await self._inspect(refs)
        moved = {ref for network in refs if network.kind is Kind.NETWORK for ref in self._moved(network, found)}
        found |= await self._inspect(moved - found.keys())
        await self._add_addresses(found)
        return found

    async def _inspect(self, refs: Collection[Ref]) -> dict[Ref, Status | None]:
        found: dict[Ref, Status | None] = {}
        todo = iter(refs)

        async def work() -> None:
            turn = Turn()
            for ref in todo:
                found[ref] = await self._find(ref)
                if turn.long:
                    await turn.give()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(refs))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return found

    async def _find(self, ref: Ref) -> Status | None:
        """By the backend that it was made with, else by any that has it."""
        name = self._store.backend_of(ref)
        if name is not None:
            with contextlib.suppress(NotFound):
                return await self._registry.get(ref.kind, name).inspect(ref)
        for backend in self._registry.every(ref.kind):
            if backend.name != name:
                with contextlib.suppress(NotFound):
                    return await backend.inspect(ref)
        return None

    def _moved(self, network: Ref, found: dict[Ref, Status | None]) -> set[Ref]:
        """The members that were plugged in or out, or whose port is another, since the network was last looked at."""
        status = found[network]
        before, after = self._members.get(network, ()), () if status is None else status.ports
        if status is None:
            self._members.pop(network, None)
        else:
            self._members[network] = after
        known = {(port.consumer, port.index): port for port in before}
        moved = set()
        for port in after:
            was = known.pop((port.consumer, port.index), None)
            if was is None or (was.address, was.present) != (port.address, port.present):
                moved.add(port.consumer)
        return moved | {consumer for consumer, _ in known}

    async def _add_addresses(self, found: dict[Ref, Status | None]) -> None:
        up = [s for s in found.values() if s is not None and s.ref.kind in MEMBERS and s.phase in UP]
        bare = [status.ref for status in up if not status.addresses]
        wanted = {network for ref in bare for network in self._networks(ref)}
        networks = {ref: status for ref, status in found.items() if ref in wanted}
        networks |= await self._inspect(wanted - networks.keys())
        plugged: dict[Ref, list[Port]] = {}
        for network in networks.values():
            for port in () if network is None else network.ports:
                plugged.setdefault(port.consumer, []).append(port)
        for status in up:
            published = self._store.published_by(status.ref)
            found[status.ref] = endpoints.completed(status, plugged.get(status.ref, ()), published)

    def _networks(self, ref: Ref) -> list[Ref]:
        row = self._store.get(ref)
        names: tuple[str, ...] = getattr(row.desired.spec, "networks", ()) if row else ()
        return [Ref(ref.profile, Kind.NETWORK, name) for name in names]
