"""The facade: the only thing that a front end calls."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import msgspec

from vmtui.core.backend import (
    Backend,
    CountsExits,
    Desired,
    ExecRequest,
    ExecSession,
    Executes,
    HasConsole,
    HasLogs,
    LogFiles,
    LogLine,
    LogSource,
    Measurable,
    Probe,
    Progress,
    Terminal,
    roles,
)
from vmtui.core.errors import (
    Fault,
    NotFound,
    NotPermitted,
)
from vmtui.core.events import Event, ReadyReached, StepProgressed
from vmtui.core.lifecycle import Action, Role, refusal
from vmtui.core.resource import Kind, Problem, Ref, Sample, Status
from vmtui.engine import endpoints, readiness, selection, verbs
from vmtui.engine.lock import exclusive
from vmtui.engine.observing import Observer
from vmtui.engine.operations import Emit, Operations, Outcome, Run, roll_back
from vmtui.engine.plan import Plan, make_down_plan, make_plan
from vmtui.engine.reap import reap
from vmtui.engine.registry import Registry, names
from vmtui.engine.store import DATABASE, Applied, Recorded, Store, open_context
from vmtui.host import trace
from vmtui.host.paths import Paths
from vmtui.profile import graph
from vmtui.profile.schema import Declared, Profile

LOCK_WAIT_S = 3.0


class Workspace:
    """One user's resources: what should exist (the store), what does (the backends), and the acts between them."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self.registry = registry
        self.store = store
        self.operations = Operations(registry, store)
        self.observer = Observer(registry, store)
        self._lock = registry.context.paths.state / "lock"
        self._turn = asyncio.Lock()  # among the tasks of this process, which may wait for each other

    @classmethod
    async def open(cls, paths: Paths, *, by: str = "") -> Self:
        """`by` is what the history says of who acts. Raises Fault when state directory or database cannot be used."""
        context = open_context(paths)
        return cls(Registry(context), Store(paths.state / DATABASE, by=by))

    async def aclose(self) -> None:
        await self.registry.aclose()
        self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # What is there

    async def scan(self, kinds: Collection[Kind] | None = None) -> tuple[Status, ...]:
        """Everything of this workspace that the host has, over all profiles and backends."""
        return await self.observer.complete(await self._scan(kinds))

    async def refresh(self, refs: Collection[Ref]) -> dict[Ref, Status | None]:
        """These as they are now, None for what is gone: what to ask for when `watch` has named them.

        Each is inspected, so that it has all facts; addresses and endpoints are there as in `scan`. With a network come
        its members that were plugged in or out since it was last looked at, by `scan` or by this: their addresses are
        other ones now. Nothing else is looked at, and nothing of the answer is remembered but who is on a network.
        """
        with trace.doing("refresh", reads=True):
            return await self.observer.refresh(refs)

    async def _scan(self, kinds: Collection[Kind] | None) -> list[Status]:
        wanted = [backend for kind in Kind if kinds is None or kind in kinds for backend in self.registry.every(kind)]
        with trace.doing("scan", reads=True):
            results = await asyncio.gather(*(backend.scan() for backend in wanted))
        return [status for found in results for status in found]

    async def _observed(self, profile: str) -> dict[Ref, Status]:
        return {status.ref: status for status in await self._scan(None) if status.ref.profile == profile}

    async def inspect(self, ref: Ref) -> Status:
        """One resource with all facts, its addresses and endpoints. Raises NotFound."""
        row = self.store.get(ref)
        status = await self._find(ref, row)
        networks = [
            await self.inspect_or_none(Ref(ref.profile, Kind.NETWORK, name))
            for name in (getattr(row.desired.spec, "networks", ()) if row else ())
        ]
        known = {} if row is None else {ref: row.desired.spec}
        return endpoints.complete([status, *filter(None, networks)], known)[0]

    async def inspect_or_none(self, ref: Ref) -> Status | None:
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
        raise NotFound(f"there is no {ref}", hint="vmtui ls")

    def profiles(self) -> tuple[str, ...]:
        """The profiles that the store knows."""
        return self.store.profiles()

    def applied(self, ref: Ref) -> Desired[Any] | None:
        """What it was last made from, None if the database does not know."""
        row = self.store.get(ref)
        return None if row is None else self.operations.typed(row)

    def references(self, ref: Ref) -> tuple[tuple[Ref, ...], tuple[Ref, ...]]:
        """What it was made to refer to, and what refers to it."""
        row = self.store.get(ref)
        mine = () if row is None else tuple(graph.dependencies(Declared(ref=ref, spec=row.desired.spec)))
        users = [
            other
            for other, found in self.store.mentioning(ref).items()
            if any(edge.provider == ref for edge in graph.dependencies(Declared(ref=other, spec=found.desired.spec)))
        ]
        return tuple(dict.fromkeys(edge.provider for edge in mine)), tuple(sorted(users))

    def resolve(self, text: str, statuses: Sequence[Status]) -> Ref:
        """PROFILE/KIND/NAME, KIND/NAME or NAME to the one resource that it means. Raises NotFound."""
        known = {status.ref for status in statuses} | set(self.store.everything())
        parts = text.split("/")
        fits = sorted(ref for ref in known if [ref.profile, ref.kind, ref.name][-len(parts) :] == parts)
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise NotFound(f"{text!r} can mean {', '.join(map(str, fits))}", hint="write the full name")
        close = difflib.get_close_matches(text, [name for ref in known for name in (str(ref), ref.short, ref.name)], 1)
        raise NotFound(f"there is no resource {text!r}", hint=f"did you mean {close[0]}?" if close else "vmtui ls")

    # Plans

    async def plan(
        self,
        profile: Profile,
        *,
        only: Sequence[str] = (),
        recreate: Sequence[str] = (),
        prune: bool = True,
        check: bool = True,
    ) -> Plan:
        """What would make the host as `profile` says. Changes nothing. Without `check` it may be impossible here.

        `only` restricts it to these resources and what they need; `recreate` names resources, or is ("all",).
        Raises ProfileInvalid, Conflict, MissingCapability for what could not be carried out.
        """
        declared = {item.ref: item for item in profile.resources}
        needs = _needs(profile.resources)
        chosen = set(declared)
        if only:
            chosen &= graph.closure(self._named(profile.name, only, declared), graph.edges(profile.resources))
        again = set(declared) if "all" in recreate else self._named(profile.name, recreate, declared)
        applied = self.store.of_profile(profile.name)
        observed = await self._observed(profile.name)
        with trace.doing(f"plan {profile.name}", reads=True):
            desired = {
                ref: await selection.desired(self.registry, item, applied.get(ref), observed.get(ref))
                for ref, item in declared.items()
                if ref in chosen
            }
        plan = make_plan(
            profile.name,
            desired,
            {ref: needs[ref] for ref in desired},
            applied,
            observed,
            roles=lambda ref: roles(self.operations.backend(desired[ref])),
            recreate=again & chosen,
            interrupted=self.store.interrupted(),
            prune=prune and not only,
            path=str(profile.path or ""),
        )
        with trace.doing(f"plan {profile.name}", reads=True):
            notes = await selection.passed_over(self.registry, plan, declared)
            if check:
                await selection.preflight(self.registry, plan, declared)
        return msgspec.structs.replace(plan, notes=(*plan.notes, *notes))

    def _named(self, profile: str, texts: Sequence[str], known: Collection[Ref]) -> set[Ref]:
        found = set()
        for text in texts:
            fits = [ref for ref in known if text in (str(ref), ref.short, ref.name)]
            if len(fits) != 1:
                problem = "is ambiguous" if fits else "is not in it"
                raise NotFound(f"profile {profile}: {text!r} {problem}", hint=", ".join(sorted(r.short for r in known)))
            found.update(fits)
        return found

    async def plan_down(self, profile: str, *, purge: bool, only: Sequence[str] = ()) -> Plan:
        """What would remove a profile, without its file. Raises NotFound if nothing of it is known or there."""
        applied = self.store.of_profile(profile)
        observed = await self._observed(profile)
        if not applied and not observed and profile not in self.store.profiles():
            known = ", ".join(self.profiles()) or "none"
            raise NotFound(f"nothing of a profile {profile!r} is here", hint=f"profiles that are: {known}")
        chosen = self._named(profile, only, {*applied, *observed}) if only else None
        return make_down_plan(profile, applied, observed, purge=purge, only=chosen)

    # Acts

    @contextlib.asynccontextmanager
    async def changing(self, purpose: str, *, wait_s: float = LOCK_WAIT_S) -> AsyncIterator[None]:
        """Hold the workspace's lock, in turn with others of this process. Raises LockHeld if another process has it."""
        async with self._turn, exclusive(self._lock, wait_s=wait_s, purpose=purpose):
            yield

    async def apply(self, plan: Plan, *, emit: Emit, on_failure: Literal["keep", "rollback"] = "rollback") -> Outcome:
        """Carry out a plan. A failing step is in the outcome; raises LockHeld, and CancelledError after clean-up."""
        if plan.empty:
            if plan.down:
                self.store.release_reserve()
                self.store.remove_profile(plan.profile)
            if self._open_steps(plan) or (plan.down and self.registry.context.profile_dir(plan.profile).exists()):
                async with self.changing(f"apply {plan.profile}"):
                    await self._settle(plan)
                    self._forget_profile(plan)
            return Outcome(result="converged", changes=0)
        async with self.changing(f"apply {plan.profile}"):
            if plan.down:
                self.store.release_reserve()
            else:
                self.store.put_profile(plan.profile, plan.path)
            try:
                if not plan.down:
                    self.store.make_reserve()
                outcome = await Run(self.operations, plan, emit).execute(on_failure)
                if outcome.result == "converged":
                    await self._settle(plan)
                return outcome
            finally:
                self._forget_profile(plan)

    def _open_steps(self, plan: Plan) -> set[Ref]:
        return {ref for ref in self.store.interrupted() if ref.profile == plan.profile}

    async def _settle(self, plan: Plan) -> None:
        """Forget the steps that an earlier run did not end, of what this plan brought in order or what is gone."""
        changed = {change.ref for change in plan.changes}
        if self._open_steps(plan) - changed:
            here = {status.ref for status in await self.scan()} | set(self.store.of_profile(plan.profile))
            changed |= self._open_steps(plan) - here
        self.store.journal_settle(changed)

    def _forget_profile(self, plan: Plan) -> None:
        if not self.store.of_profile(plan.profile):
            self.store.remove_profile(plan.profile)
            self._remove_empty_directories(self.registry.context.profile_dir(plan.profile))

    @staticmethod
    def _remove_empty_directories(top: Path) -> None:
        """What a run leaves that is killed before it has put anything into them, or after it has emptied them."""
        for directory in [*(Path(path) for path, _, _ in os.walk(top, topdown=False)), top.parent]:
            with contextlib.suppress(OSError):
                directory.rmdir()

    async def roll_back(self, plan: Plan, outcome: Outcome, *, emit: Emit) -> None:
        """Take back what an apply did, after it succeeded but did not become ready."""
        async with self.changing(f"roll back {plan.profile}", wait_s=30.0):
            await roll_back(outcome.undo, emit, self.store)
            self._forget_profile(plan)

    async def wait_ready(self, refs: Iterable[Ref], *, timeout: float | None, emit: Emit) -> tuple[Status, ...]:
        """Wait for all of them at once; their statuses. Raises ReadinessTimeout, OperationFailed for the first."""
        began = time.monotonic()

        async def one(ref: Ref) -> Status:
            row = self.store.get(ref)
            if row is None:
                raise NotFound(f"{ref} is not applied", hint="vmtui ls")
            with trace.doing(f"wait for {ref}", reads=True):
                status = await readiness.wait(self, ref, row.desired.spec, seen=row.ready, timeout=timeout)
            instance = readiness.instance(status)
            if instance and instance != row.ready:
                self.store.set_ready(ref, instance)
            elapsed = time.monotonic() - began
            emit(ReadyReached(at=time.time(), ref=ref, elapsed_s=elapsed, endpoints=status.endpoints))
            return status

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(ref)) for ref in refs]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return tuple(task.result() for task in tasks)

    async def act(
        self, ref: Ref, action: Action, *, emit: Emit, grace_s: float | None = None, purge: bool = False
    ) -> Status | None:
        """One verb on one resource; its status then, None once deleted. Raises NotPermitted, NotFound, LockHeld."""
        async with self.changing(f"{action} {ref}"):
            await self.carry_out(ref, action, emit=emit, grace_s=grace_s, purge=purge)
        return None if action is Action.DELETE else await self.inspect(ref)

    async def carry_out(
        self, ref: Ref, action: Action, *, emit: Emit, grace_s: float | None = None, purge: bool = False
    ) -> None:
        """The same for who holds `changing`: several at once. Raises NotPermitted, NotFound."""
        row = self.store.get(ref)
        if action is Action.DELETE:
            there = await self.inspect_or_none(ref)
            with trace.doing(f"{action} {ref}"):
                await verbs.delete(self.operations, ref, row, there, purge=purge)
            return
        status = await self._find(ref, row)
        backend = self.registry.get(ref.kind, status.backend)
        if (why := refusal(action, status.phase, roles(backend))) is not None:
            raise NotPermitted(f"{action} {ref}: {why}")
        try:
            with trace.doing(f"{action} {ref}"):
                await verbs.carry_out(
                    self.operations, row, status, action, grace_s=grace_s, report=_progress(emit, ref, action)
                )
        except Fault as fault:
            self.store.record(ref, action, "failed", str(fault))
            raise
        self.store.record(ref, action, "done")

    async def reap(self, ref: Ref) -> None:
        """What the parent of a workload asks for when it has ended: its restart policy, or its ports unplugged."""
        await reap(self.operations, self.changing, ref)

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
        """Its log lines; hostile text. Raises NotPermitted, NotFound."""
        backend = await self._running(ref, Action.LOGS)
        assert isinstance(backend, HasLogs)
        async with contextlib.aclosing(backend.logs(ref, tail=tail, follow=follow)) as lines:  # type: ignore[type-var]
            async for line in lines:
                yield line

    async def log_source(self, ref: Ref) -> LogSource | None:
        """The files of its log; None if its backend has it in none. Raises NotPermitted, NotFound."""
        backend = await self._running(ref, Action.LOGS)
        return await backend.log_source(ref) if isinstance(backend, LogFiles) else None

    async def exec(self, ref: Ref, request: ExecRequest) -> ExecSession:
        """Run a command inside. Raises NotPermitted, NotFound."""
        backend = await self._running(ref, Action.EXEC)
        assert isinstance(backend, Executes)
        with trace.doing(f"exec {ref}"):
            return await backend.exec(ref, request)

    async def console(self, ref: Ref) -> Terminal:
        """Attach to its console. Raises NotPermitted, NotFound, ResourceBusy."""
        backend = await self._running(ref, Action.CONSOLE)
        assert isinstance(backend, HasConsole)
        return await backend.console(ref)

    async def stats(self, ref: Ref) -> Sample:
        """One measurement. Raises NotPermitted, NotFound."""
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
        """What its guest left for, and how often: see CountsExits. Raises NotPermitted, NotFound, OperationFailed."""
        name = self.store.backend_of(ref) or (await self.inspect(ref)).backend
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
                yield await queue.get()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def events(self, *, limit: int | None = None, after: int = 0) -> list[Recorded]:
        """What happened, oldest first; `after` is the id of the last one already seen."""
        return self.store.history(limit=limit, after=after)

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


def _needs(resources: Iterable[Declared]) -> dict[Ref, frozenset[Ref]]:
    needs: dict[Ref, set[Ref]] = {item.ref: set() for item in resources}
    for edge in graph.edges(resources):
        needs[edge.consumer].add(edge.provider)
    return {ref: frozenset(found) for ref, found in needs.items()}


def _progress(emit: Callable[[Event], None], ref: Ref, action: str) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        emit(
            StepProgressed(at=time.time(), ref=ref, action=action, message=progress.message, fraction=progress.fraction)
        )

    return report
