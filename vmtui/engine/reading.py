"""What a front end may ask of a workspace without changing it. Each method shows what its person may see, no more."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, cast

import msgspec

from vmtui.core.backend import (
    Backend,
    CountsExits,
    Desired,
    HasLogs,
    LogFiles,
    LogLine,
    LogSource,
    Measurable,
    Probe,
    roles,
)
from vmtui.core.errors import NotFound, NotPermitted
from vmtui.core.lifecycle import Action, Role, refusal
from vmtui.core.policy import Verb
from vmtui.core.resource import Kind, Problem, Ref, Sample, Status
from vmtui.engine import authority as authorities
from vmtui.engine import endpoints
from vmtui.engine.authority import Authority
from vmtui.engine.guard import Guard, absent
from vmtui.engine.observing import Observer
from vmtui.engine.operations import Operations
from vmtui.engine.registry import Registry, names
from vmtui.engine.store import Applied, Recorded, Store
from vmtui.host import trace
from vmtui.profile import graph
from vmtui.profile.schema import Declared


class Reading:
    """The store and the backends of a workspace as `authority` may see them. Hidden is as good as absent."""

    def __init__(self, registry: Registry, store: Store, authority: Authority | None = None) -> None:
        """Without an `authority` it is the one that this process acts in."""
        self.registry = registry
        self.store = store
        self.authority = authorities.current() if authority is None else authority
        self.guard = Guard(self.authority, store)
        person = self.authority.person
        self.operations = Operations(registry, store, owner="" if person is None else person.name)
        self.observer = Observer(registry, store)

    # Permissions

    def may(self, verb: Verb, ref: Ref) -> bool:
        """Whether this person may do `verb` to it: what a front end offers. The acts themselves ask again."""
        return self.guard.may(verb, ref)

    def require(self, verb: Verb, ref: Ref, *, to: str = "") -> None:
        """For what is done to it elsewhere, such as a connection. Raises NotFound, Denied, and notes that."""
        self.guard.require(verb, ref, to=to)

    # What is there

    async def scan(self, kinds: Collection[Kind] | None = None) -> tuple[Status, ...]:
        """Everything of this workspace that the host has, over all profiles and backends."""
        return self.guard.seen(await self.observer.complete(await self._scan(kinds)))

    async def refresh(self, refs: Collection[Ref]) -> dict[Ref, Status | None]:
        """These as they are now, None for what is gone: what to ask for when `watch` has named them.

        Each is inspected, so that it has all facts; addresses and endpoints are there as in `scan`. With a network come
        its members that were plugged in or out since it was last looked at, by `scan` or by this: their addresses are
        other ones now. Nothing else is looked at, and nothing of the answer is remembered but who is on a network.
        """
        guard = self.guard
        with trace.doing("refresh", reads=True), guard.telling():
            found = await self.observer.refresh([ref for ref in refs if guard.sees(ref)])
        shown = {
            ref: None if status is None else guard.shown(status) for ref, status in found.items() if guard.sees(ref)
        }
        return {**{ref: None for ref in refs if ref not in shown and guard.watched(ref)}, **shown}

    async def _scan(self, kinds: Collection[Kind] | None) -> list[Status]:
        wanted = [backend for kind in Kind if kinds is None or kind in kinds for backend in self.registry.every(kind)]
        with trace.doing("scan", reads=True):
            results = await asyncio.gather(*(backend.scan() for backend in wanted))
        return [status for found in results for status in found]

    async def _observed(self, profile: str) -> dict[Ref, Status]:
        """What the host has of a profile, all of it."""
        return {status.ref: status for status in await self._scan(None) if status.ref.profile == profile}

    async def inspect(self, ref: Ref) -> Status:
        """One resource with all facts, its addresses and endpoints. Raises NotFound."""
        if not self.guard.sees(ref):
            raise absent(ref)
        with self.guard.telling():
            return self.guard.shown(await self._inspect(ref))

    async def _inspect(self, ref: Ref) -> Status:
        row = self.store.get(ref)
        status = await self._find(ref, row)
        networks = [
            await self._inspect_or_none(Ref(ref.profile, Kind.NETWORK, name))
            for name in (getattr(row.desired.spec, "networks", ()) if row else ())
        ]
        known = {} if row is None else {ref: row.desired.spec}
        return endpoints.complete([status, *filter(None, networks)], known)[0]

    async def inspect_or_none(self, ref: Ref) -> Status | None:
        if not self.guard.sees(ref):
            return None
        with self.guard.telling():
            status = await self._inspect_or_none(ref)
        return None if status is None else self.guard.shown(status)

    async def _inspect_or_none(self, ref: Ref) -> Status | None:
        row = self.store.get(ref)
        with contextlib.suppress(NotFound):
            return await self._find(ref, row)
        return None

    async def _find(self, ref: Ref, row: Applied | None) -> Status:
        with trace.doing(f"inspect {ref}", reads=True):
            if row is not None:
                return await self.registry.get(ref.kind, row.desired.backend).inspect(ref)
            for backend in self.registry.every(ref.kind):
                with contextlib.suppress(NotFound):
                    return await backend.inspect(ref)
        raise absent(ref)

    def profiles(self) -> tuple[str, ...]:
        """The profiles that the store knows."""
        known = self.store.profiles()
        if self.guard.sees_all:
            return known
        seen = {ref.profile for ref in self.everything()}
        return tuple(name for name in known if name in seen)

    def profile_paths(self) -> dict[str, str]:
        """The files from which profiles were applied last; they are the host's."""
        return self.store.profile_paths() if self.authority.may(Verb.HOST) else {}

    def everything(self) -> dict[Ref, Applied]:
        """What the database knows."""
        return self._seen(self.store.everything())

    def _seen(self, rows: Mapping[Ref, Applied]) -> dict[Ref, Applied]:
        return {ref: row for ref, row in rows.items() if self.guard.sees(ref)}

    def applied(self, ref: Ref) -> Desired[Any] | None:
        """What it was last made from, None if the database does not know."""
        row = self.store.get(ref) if self.guard.sees(ref) else None
        return None if row is None else self.operations.typed(row)

    def references(self, ref: Ref) -> tuple[tuple[Ref, ...], tuple[Ref, ...]]:
        """What it was made to refer to, and what refers to it."""
        if not self.guard.sees(ref):
            return (), ()
        row = self.store.get(ref)
        mine = () if row is None else tuple(graph.dependencies(Declared(ref=ref, spec=row.desired.spec)))
        users = [
            other
            for other, found in self._seen(self.store.mentioning(ref)).items()
            if any(edge.provider == ref for edge in graph.dependencies(Declared(ref=other, spec=found.desired.spec)))
        ]
        used = dict.fromkeys(edge.provider for edge in mine if self.guard.sees(edge.provider))
        return tuple(used), tuple(sorted(users))

    def resolve(self, text: str, statuses: Sequence[Status]) -> Ref:
        """PROFILE/KIND/NAME, KIND/NAME or NAME to the one resource that it means. Raises NotFound."""
        known = {status.ref for status in statuses if self.guard.sees(status.ref)} | set(self.everything())
        parts = text.split("/")
        fits = sorted(ref for ref in known if [ref.profile, ref.kind, ref.name][-len(parts) :] == parts)
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise NotFound(f"{text!r} can mean {', '.join(map(str, fits))}", hint="write the full name")
        close = difflib.get_close_matches(text, [name for ref in known for name in (str(ref), ref.short, ref.name)], 1)
        raise NotFound(f"there is no resource {text!r}", hint=f"did you mean {close[0]}?" if close else "vmtui ls")

    # Streams

    async def _running(self, ref: Ref, action: Action) -> Backend[Any]:
        status = await self._find(ref, self.store.get(ref))
        backend = self.registry.get(ref.kind, status.backend)
        if (why := refusal(action, status.phase, roles(backend))) is not None:
            raise NotPermitted(
                f"{action} {ref}: {why}", hint=f"vmtui start {ref}" if "it is" in why else "vmtui backends"
            )
        return backend

    async def logs(self, ref: Ref, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        """Its log lines; hostile text. Raises NotPermitted, NotFound, Denied."""
        self.guard.require(Verb.LOGS, ref)
        async with contextlib.aclosing(self._logs(ref, tail=tail, follow=follow)) as lines:  # type: ignore[type-var]
            async for line in lines:
                yield line

    async def _logs(self, ref: Ref, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        backend = await self._running(ref, Action.LOGS)
        assert isinstance(backend, HasLogs)
        async with contextlib.aclosing(backend.logs(ref, tail=tail, follow=follow)) as lines:  # type: ignore[type-var]
            async for line in lines:
                yield line

    async def log_source(self, ref: Ref) -> LogSource | None:
        """The files of its log; None if its backend has it in none. Raises NotPermitted, NotFound, Denied."""
        self.guard.require(Verb.LOGS, ref)
        backend = await self._running(ref, Action.LOGS)
        return await backend.log_source(ref) if isinstance(backend, LogFiles) else None

    async def stats(self, ref: Ref) -> Sample:
        """One measurement. Raises NotPermitted, NotFound, Denied."""
        self.guard.require(Verb.STATS, ref)
        name = self.store.backend_of(ref)
        if name is not None and Role.MEASURABLE in self.roles(ref.kind, name):
            with contextlib.suppress(NotFound, NotPermitted):  # said below, with a hint
                return await cast("Measurable", self.registry.get(ref.kind, name)).stats(ref)
        backend = await self._running(ref, Action.STATS)
        assert isinstance(backend, Measurable)
        return await backend.stats(ref)

    def counts_exits(self, ref: Ref, backend: str) -> bool:
        """Whether `exits` can be asked for."""
        return isinstance(self.registry.get(ref.kind, backend), CountsExits)

    async def exits(self, ref: Ref) -> Sequence[tuple[str, int]]:
        """What its guest left for, and how often: see CountsExits.

        Raises NotPermitted, NotFound, Denied, OperationFailed.
        """
        self.guard.require(Verb.STATS, ref)
        name = self.store.backend_of(ref) or (await self._inspect(ref)).backend
        backend = self.registry.get(ref.kind, name)
        if not isinstance(backend, CountsExits):
            raise NotPermitted(f"backend {name} does not count the exits of {ref}", hint="a VM on backend kvm does")
        return await backend.exits(ref)

    async def watch(self) -> AsyncIterator[Ref]:
        """Refs whose status may have changed, from all backends, until closed."""
        queue: asyncio.Queue[Ref] = asyncio.Queue(maxsize=1000)

        async def pump(backend: Backend[Any]) -> None:
            async for ref in backend.watch():
                await queue.put(ref)

        tasks = [asyncio.create_task(pump(backend)) for kind in Kind for backend in self.registry.every(kind)]
        try:
            while True:
                ref = await queue.get()
                if self.guard.watched(ref):
                    yield ref
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def events(self, *, limit: int | None = None, after: int = 0) -> list[Recorded]:
        """What happened, oldest first; `after` is the id of the last one already seen."""
        if self.guard.sees_all:
            return self.store.history(limit=limit, after=after)
        found = [told for entry in self.store.history(limit=None, after=after) if (told := self._told(entry))]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def _told(self, entry: Recorded) -> Recorded | None:
        try:
            seen = self.guard.sees(Ref.parse(entry.ref))
        except ValueError:
            seen = False
        return msgspec.structs.replace(entry, message=self.guard.text(entry.message)) if seen else None

    async def probe(self) -> tuple[Probe, ...]:
        """Try every backend of every kind."""
        tried = await asyncio.gather(*(self._probe(kind, name) for kind, name in self.probed()))
        return (*tried, *self._broken())

    def probed(self) -> tuple[tuple[Kind, str], ...]:
        """The kind and the name of every backend that can be tried, in order."""
        return tuple((kind, backend.name) for kind in Kind for backend in self.registry.every(kind))

    async def probe_each(self, only: Collection[tuple[Kind, str]] | None = None) -> AsyncIterator[Probe]:
        """The same one by one, as each is known; `only` restricts it to some of `probed`."""
        if only is None:
            for broken in self._broken():
                yield broken
        chosen = self.probed() if only is None else only
        tasks = [asyncio.create_task(self._probe(kind, name)) for kind, name in chosen]
        try:
            for done in asyncio.as_completed(tasks):
                yield await done
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe(self, kind: Kind, name: str) -> Probe:
        with trace.doing(f"probe {kind} {name}", reads=True):
            return await self.registry.get(kind, name).probe()

    def _broken(self) -> list[Probe]:
        """Backends that cannot even be imported."""
        return [
            Probe(
                backend=name,
                kind=kind,
                usable=False,
                summary=why,
                problems=(Problem(code="import", message=why, hint="pip install --upgrade vmtui"),),
            )
            for (kind, name), why in self.registry.broken.items()
        ]

    def backends(self) -> dict[Kind, tuple[str, ...]]:
        """The names of the backends per kind, without importing them."""
        return {kind: names(kind) for kind in Kind}

    def roles(self, kind: Kind, backend: str) -> frozenset[Role]:
        return roles(self.registry.get(kind, backend))
