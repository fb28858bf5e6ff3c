"""What the simulated backends of all kinds share: probe, scan, create, delete, watch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from sys import intern
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec.structs import replace

from vmtui.backends.fake.ledger import Ledger
from vmtui.backends.fake.options import FakeOptions
from vmtui.backends.fake.script import Effect, Script
from vmtui.backends.fake.world import PLAIN, Clock, Entry, Run, World
from vmtui.core.backend import Backend, Context, Desired, Probe, Progress, Report, roles, silent
from vmtui.core.errors import Conflict, NotPermitted
from vmtui.core.lifecycle import UP, Action, Phase, Role, refusal
from vmtui.core.resource import Exit, Fact, Problem, Ref, Status
from vmtui.core.simulation import Planted
from vmtui.core.specs import SPECS, Spec, from_json, to_json
from vmtui.host.inotify import Watch
from vmtui.host.tasks import Turn

S = TypeVar("S", bound=Spec)
STIRRED = (Problem(code="simulated", message="something about it is odd", hint="wait: it goes by itself"),)
FACTS = (Fact(name="simulated", value="yes"),)


class FakeBackend(Backend[S]):
    """`script` and `clock` are for tests and demos. Backends of one workspace see one world, in any process."""

    name: ClassVar[str] = "fake"
    priority: ClassVar[int] = -1
    options_type: ClassVar[type[msgspec.Struct] | None] = FakeOptions

    def __init__(self, context: Context, *, script: Script | None = None, clock: Clock | None = None) -> None:
        super().__init__(context)
        self.script = script or Script(counting=False)
        self.clock = clock or Clock()
        self.world = World(context, self.clock)
        self._roles: frozenset[Role] | None = None

    async def probe(self) -> Probe:
        self.script.take("probe", None, None)
        return Probe(
            backend=self.name,
            kind=self.kind,
            usable=True,
            summary=f"simulates a {self.kind}: nothing is real",
            facts=(("simulated", "yes"),),
        )

    async def scan(self) -> Sequence[Status]:
        self.script.take("scan", None, None)
        turn = Turn()
        while self.world.ledger(self.kind).behind():
            await turn.give()
        found = []
        for entry in self.world.entries(self.kind):
            found.append(self._status(entry))
            if turn.long:
                await turn.give()
        return found

    async def inspect(self, ref: Ref) -> Status:
        self.script.take("inspect", ref, None)
        return self._status(self.world.get(ref))

    async def create(self, desired: Desired[S], report: Report) -> None:
        ref = desired.ref
        options = desired.options if isinstance(desired.options, FakeOptions) else None
        effect = self.script.take(Action.CREATE, ref, options)
        present = self.world.find(ref)
        if present is None and self.world.foreign(ref):
            raise Conflict(f"{ref} is here already, made by another workspace", hint="export XDG_STATE_HOME=FOLDER")
        if present is not None and present.complete:
            if present.spec_hash != desired.spec_hash:
                raise Conflict(f"{ref} is there already, made from another spec", hint=f"vmtui rm {ref}")
            if present.phase is not Phase.BROKEN:
                return
        try:
            entry = self._begin(desired, options)
            await self._work(effect, (options or PLAIN).create_time, report, "making it up")
            self.world.put(replace(entry, complete=True))
        except BaseException:
            self.world.restore(ref, present)
            raise
        self._aftermath(effect, ref)

    async def delete(self, ref: Ref, *, purge: bool) -> None:  # noqa: ARG002 - only disks are data
        entry = self.world.find(ref)
        effect = self.script.take(Action.DELETE, ref, entry.options if entry else None)
        if entry is not None:
            await self._work(effect, 0.0, silent, "")
            self.world.remove(ref)

    async def watch(self) -> AsyncIterator[Ref]:
        world = self.world
        ledgers: list[Ledger[Any]] = self._watched()
        heard = [(ledger, ledger.listen()) for ledger in ledgers]
        turned = world.index.listen()
        watch = Watch()
        pending: asyncio.Task[Any] | None = None
        try:
            watch.add(self.context.paths.state)
            for ledger, listener in heard:
                ledger.refresh()
                listener.clear()
            turned.clear()
            changes = watch.changes()
            told = self.clock.now()
            while True:
                if pending is None:
                    pending = asyncio.ensure_future(anext(changes))
                ends = self._ends(told)
                timeout = min(ends.values()) - self.clock.now() if ends else None
                done, _ = await asyncio.wait([pending], timeout=None if timeout is None else max(0.0, timeout))
                if world.closed:
                    return
                if done:
                    pending = None
                refs: set[Ref] = set()
                for ledger, listener in heard:
                    ledger.refresh()
                    refs |= self._touched(ledger, listener)
                    listener.clear()
                refs |= self._turned(turned)
                turned.clear()
                now = self.clock.now()
                refs |= {Ref.parse(key) for key, at in self._ends(told).items() if at <= now}
                told = now
                for ref in sorted(refs):
                    yield ref
        finally:
            if pending is not None:
                pending.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                    await pending
            watch.close()
            for ledger, listener in heard:
                ledger.ignore(listener)
            world.index.ignore(turned)

    def share(self, other: FakeBackend[Any]) -> None:
        self.world = other.world

    def plant(self, resources: Sequence[Planted]) -> None:
        with self.world.ledger(self.kind).changing() as put:
            for found in resources:
                put(str(found.desired.ref), self._planted(found))

    def _planted(self, found: Planted) -> Entry:
        options = found.desired.options if isinstance(found.desired.options, FakeOptions) else None
        ended = found.exit or Exit(code=0)
        run = Run(found.since or 0.0, None if found.phase in UP else ended.at, ended.code, ended.reason)
        return replace(
            self._entry(found.desired, options, found.spec_json),
            complete=True,
            phase=found.phase,
            runs=() if found.since is None else (run,),
            attachments=found.attachments,
            problems=found.problems,
            facts=found.facts,
        )

    def trouble(self, ref: Ref, problems: Sequence[Problem]) -> None:
        self.world.put(replace(self.world.get(ref), problems=tuple(problems)))

    def stir(self, refs: Sequence[Ref]) -> None:
        turned = {Phase.RUNNING: Phase.PAUSED, Phase.PAUSED: Phase.RUNNING}
        with self.world.ledger(self.kind).changing() as put:
            for ref in refs:
                entry = self.world.find(ref)
                if entry is not None and entry.phase in turned:
                    put(str(ref), replace(entry, phase=turned[entry.phase]))
                elif entry is not None:
                    put(str(ref), replace(entry, problems=() if entry.problems else STIRRED))

    def _watched(self) -> list[Ledger[Any]]:
        """The files whose rows say what our resources are."""
        return [self.world.ledger(self.kind)]

    def _touched(self, ledger: Ledger[Any], keys: set[str]) -> set[Ref]:  # noqa: ARG002
        """Which of our resources the changed rows of `ledger` are about."""
        return {Ref.parse(key) for key in keys}

    def _turned(self, workloads: set[str]) -> set[Ref]:  # noqa: ARG002
        """Which of our resources are other ones when these go up or down, beside themselves."""
        return set()

    def _ends(self, after: float) -> dict[str, float]:
        """The workloads that end by themselves after this time, and when."""
        ledger = self.world.ledger(self.kind)
        found = {}
        for key in self.world.index.ending[self.kind]:
            entry = ledger.get(key)
            if entry is not None and (at := entry.ends_at()) is not None and at > after:
                found[key] = at
        return found

    async def check(self, desired: Desired[S], others: Sequence[Desired[Any]]) -> Sequence[Problem]:  # noqa: ARG002
        effect = self.script.take("check", desired.ref, None)
        if effect.error is None:
            return ()
        return (Problem(code="scripted", message=effect.error.message, hint=effect.error.hint),)

    async def aclose(self) -> None:
        self.world.close()

    def _begin(self, desired: Desired[S], options: FakeOptions | None) -> Entry:
        """Put the incomplete row. Raises Conflict."""
        entry = self._entry(desired, options)
        self.world.put(entry)
        return entry

    def _entry(self, desired: Desired[S], options: FakeOptions | None, spec: bytes = b"") -> Entry:
        return Entry(
            ref=desired.ref,
            mark=self.context.mark(desired.ref),
            spec_hash=desired.spec_hash,
            spec=msgspec.Raw(spec or to_json(desired.spec)),
            options=None if options == PLAIN else options,
            phase=Phase.STOPPED if self.kind.runs else Phase.AVAILABLE,
        )

    def _spec(self, entry: Entry) -> Any:
        return from_json(bytes(entry.spec), SPECS[self.kind])

    def _phase(self, entry: Entry) -> Phase:
        return entry.phase if entry.complete else Phase.BROKEN

    def _status(self, entry: Entry) -> Status:
        return Status(
            ref=self._ref(entry),
            backend=self.name,
            phase=self._phase(entry),
            spec_hash=intern(entry.spec_hash),  # and many what they were made from
            facts=FACTS if not entry.facts else (*FACTS, *entry.facts),
            problems=self._problems(entry),
        )

    def _ref(self, entry: Entry) -> Ref:
        return Ref(intern(entry.ref.profile), self.kind, entry.ref.name)  # many have their profile in common

    def _problems(self, entry: Entry) -> tuple[Problem, ...]:
        mend = f"vmtui rm {entry.ref}"
        if not entry.complete:
            return (Problem(code="half-made", message="making it was interrupted", hint=mend),)
        if entry.phase is Phase.BROKEN and not entry.problems:
            return (Problem(code="broken", message="its script broke it", hint=mend),)
        return entry.problems

    def _permit(self, action: Action, ref: Ref) -> tuple[Entry, Effect]:
        """The entry, and what is scripted, if the action is possible now. Raises NotFound, NotPermitted."""
        entry = self.world.find(ref)
        effect = self.script.take(action, ref, entry.options if entry else None)
        entry = entry or self.world.get(ref)
        if self._roles is None:
            self._roles = roles(self)
        why = refusal(action, self._phase(entry), self._roles)
        if why is not None:
            raise NotPermitted(f"cannot {action} {ref}: {why}")
        return entry, effect

    async def _work(self, effect: Effect, seconds: float, report: Report, message: str) -> None:
        """Take time and, half way, hang and fail as scripted."""
        report(Progress(message=message, fraction=0.0))
        await self.clock.sleep(seconds / 2 + effect.hang_s)
        if effect.error is not None:
            raise effect.error
        report(Progress(message=message, fraction=0.5))
        await self.clock.sleep(seconds / 2)

    def _aftermath(self, effect: Effect, ref: Ref) -> None:
        entry = self.world.find(ref)
        if entry is not None and effect.vanishes:
            self.world.remove(ref)
        elif entry is not None and effect.breaks:
            self.world.put(replace(entry, phase=Phase.BROKEN))
