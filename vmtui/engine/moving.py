"""Makes the demo move: what would happen by itself, or by a person, on a real host. The same for the same seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from vmtui.core.backend import Backend
from vmtui.core.errors import Fault, NotFound
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Exit, Kind, Problem, Ref
from vmtui.core.simulation import Simulates, SimulatesEnds, SimulatesLinks
from vmtui.engine.authority import OWNER
from vmtui.engine.estate import Estate
from vmtui.engine.registry import FAKE
from vmtui.engine.store import DATABASE, Store
from vmtui.engine.wiring import MEDIA
from vmtui.engine.workspace import Workspace
from vmtui.host.tasks import Turn

CHANGE = "VMTUI_DEMO_CHANGE"  # see `move`
CHANGES_PER_S = 4  # portions in which that is done
PAUSE_S = 4.0  # between two happenings, about
LASTS_S = (8.0, 25.0)
TROUBLES = {
    Kind.NETWORK: Problem(code="dns", message="its name server does not answer", hint="vmtui doctor"),
    Kind.DISK: Problem(code="slow", message="it answers after more than 2 s", hint="vmtui doctor"),
    Kind.VM: Problem(code="agent", message="the guest agent does not answer", hint="vmtui console {ref}"),
    Kind.CONTAINER: Problem(code="memory", message="a process was killed in it: memory limit", hint="vmtui logs {ref}"),
    Kind.SANDBOX: Problem(code="fuel", message="less than a tenth of its fuel is left", hint="vmtui logs {ref}"),
}
ENDS = (Exit(code=1, reason="unhandled error"), Exit(code=137, reason="killed: out of memory"))


@dataclass(slots=True)
class Clock:
    """Time as the demo goes through it."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


async def move(
    workspace: Workspace, estate: Estate, rng: random.Random, clock: Clock | None = None, *, change: float | None = None
) -> None:
    """Let things happen until cancelled: ends, restarts, troubles, links that go and come.

    `change` is the share of all resources that changes each second beside that, such as 0.01; with 0 nothing moves at
    all. None: as VMTUI_DEMO_CHANGE says, if it is set.
    """
    share = _share() if change is None else change
    if not estate.size or share == 0:
        return
    mover = Mover(workspace, estate, rng, clock or Clock())
    async with asyncio.TaskGroup() as group:
        group.create_task(mover.run())
        if share is not None:
            group.create_task(mover.stir(share))


def _share() -> float | None:
    with contextlib.suppress(ValueError):
        return min(1.0, max(0.0, float(os.environ.get(CHANGE, ""))))
    return None


@dataclass(slots=True)
class Mover:
    """Acts through the simulated world, and through the engine where a person or a policy would."""

    workspace: Workspace
    estate: Estate
    rng: random.Random
    clock: Clock
    _later: list[tuple[float, Callable[[], Awaitable[None]]]] = field(default_factory=list)

    async def run(self) -> None:
        registry = self.workspace.registry
        engine = Workspace(registry, Store(registry.context.paths.state / DATABASE, by="the simulation"), OWNER)
        try:
            while True:
                await self.clock.sleep(self.rng.uniform(0.5, 1.5) * PAUSE_S)
                with contextlib.suppress(Fault, OSError):  # a person was faster, or holds the lock
                    await self._settle()
                    await self._happen(engine)
        finally:
            engine.store.close()

    async def stir(self, share: float) -> None:
        """Change that share of all each second."""
        owed = 0.0
        while True:
            began = self.clock.now()
            owed += share * self.estate.size / CHANGES_PER_S
            refs = {self._any() for _ in range(int(owed))}
            owed -= int(owed)
            turn = Turn()
            for kind in Kind:
                mine = [ref for ref in refs if ref.kind is kind]
                for start in range(0, len(mine), 50):
                    cast("Simulates", self._backend(kind)).stir(mine[start : start + 50])
                    if turn.long:
                        await turn.give()
            await self.clock.sleep(max(0.0, began + 1 / CHANGES_PER_S - self.clock.now()))

    def _any(self) -> Ref:
        return self.estate.pick(self.rng.randrange(self.estate.size))

    def _backend(self, kind: Kind) -> Backend[Any]:
        return self.workspace.registry.get(kind, FAKE)

    def _after_a_while(self, act: Callable[[], Awaitable[None]]) -> None:
        self._later.append((self.clock.now() + self.rng.uniform(*LASTS_S), act))

    async def _settle(self) -> None:
        """End what has lasted long enough."""
        now = self.clock.now()
        due = [act for at, act in self._later if at <= now]
        self._later = [(at, act) for at, act in self._later if at > now]
        for act in due:
            await act()

    async def _happen(self, engine: Workspace) -> None:
        """One thing, to a resource that is drawn."""
        ref = self._any()
        status = await engine.inspect_or_none(ref)
        draw = self.rng.random()
        if status is None:
            return
        if ref.kind.runs and status.phase is Phase.RUNNING and draw < 0.4:
            await self._end(engine, ref)
        elif ref.kind in MEDIA and status.phase is Phase.RUNNING and draw < 0.6 and status.ports:
            self._unplug(status.ports[0].network, ref)
        elif ref.kind.runs and status.phase is Phase.RUNNING and draw < 0.7:
            await engine.act(ref, Action.STOP, emit=lambda _: None, grace_s=0.0)
            self._after_a_while(lambda: self._start(engine, ref))
        elif not status.problems and status.phase in (Phase.RUNNING, Phase.AVAILABLE):
            self._trouble(ref)

    async def _end(self, engine: Workspace, ref: Ref) -> None:
        """It ends by itself; its policy starts it again, or a person does a while later."""
        ended = msgspec.structs.replace(self.rng.choice(ENDS), at=self.clock.now())
        cast("SimulatesEnds", self._backend(ref.kind)).end(ref, ended)
        await engine.reap(ref)
        self._after_a_while(lambda: self._start(engine, ref))

    async def _start(self, engine: Workspace, ref: Ref) -> None:
        status = await engine.inspect_or_none(ref)
        if status is not None and status.phase in (Phase.STOPPED, Phase.EXITED):
            await engine.act(ref, Action.START, emit=lambda _: None)

    def _unplug(self, network: Ref, ref: Ref) -> None:
        links = cast("SimulatesLinks", self._backend(Kind.NETWORK))

        async def plug() -> None:
            links.link(network, ref, up=True)

        links.link(network, ref, up=False)
        self._after_a_while(plug)

    def _trouble(self, ref: Ref) -> None:
        backend = cast("Simulates", self._backend(ref.kind))
        trouble = TROUBLES[ref.kind]

        async def mend() -> None:
            with contextlib.suppress(NotFound):
                backend.trouble(ref, ())

        backend.trouble(ref, [msgspec.structs.replace(trouble, hint=trouble.hint.format(ref=ref))])
        self._after_a_while(mend)
