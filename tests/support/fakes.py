"""A workspace in which nothing is real: only the simulated backends, which share one script."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from vmtui.backends.fake.backend import (
    FakeContainerBackend,
    FakeDiskBackend,
    FakeNetworkBackend,
    FakeSandboxBackend,
    FakeVmBackend,
)
from vmtui.backends.fake.base import FakeBackend
from vmtui.backends.fake.options import FakeOptions
from vmtui.backends.fake.script import Script
from vmtui.backends.fake.world import Clock
from vmtui.core.backend import Backend, Context
from vmtui.core.errors import NotFound
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import DiskSpec, Spec, to_json
from vmtui.engine.operations import Emit
from vmtui.engine.registry import Registry
from vmtui.engine.store import Store, open_context
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.schema import Declared, Profile

FAKES: dict[Kind, type[FakeBackend[Any]]] = {
    Kind.NETWORK: FakeNetworkBackend,
    Kind.DISK: FakeDiskBackend,
    Kind.VM: FakeVmBackend,
    Kind.CONTAINER: FakeContainerBackend,
    Kind.SANDBOX: FakeSandboxBackend,
}


UNTIL_LET_GO_S = 1e9  # what an Effect hangs for that is to go on when its test says so


class Held:
    """Time for the simulation in which what hangs UNTIL_LET_GO_S hangs until `let_go`."""

    def __init__(self) -> None:
        self._go = asyncio.Event()
        self.clock = Clock(sleep=self._sleep)

    def let_go(self) -> None:
        self._go.set()

    async def _sleep(self, seconds: float) -> None:
        if seconds < UNTIL_LET_GO_S:
            await asyncio.sleep(seconds)
        else:
            await self._go.wait()


class FakeRegistry(Registry):
    """Knows the simulated backends alone."""

    def __init__(self, context: Context, script: Script | None = None, clock: Clock | None = None) -> None:
        super().__init__(context)
        self.script = script or Script()
        self._made = {(kind, "fake"): fake(context, script=self.script, clock=clock) for kind, fake in FAKES.items()}

    def every(self, kind: Kind) -> tuple[Backend[Any], ...]:
        return (self.get(kind, "fake"),)


def open_fakes(paths: Paths, script: Script | None = None, clock: Clock | None = None) -> Workspace:
    """A workspace on `paths`; the caller closes it."""
    return Workspace(FakeRegistry(open_context(paths), script, clock), Store(paths.state / "state.db"))


def profile(name: str, specs: dict[str, Spec], options: dict[str, FakeOptions] | None = None) -> Profile:
    """A profile of resources named KIND/NAME, as the loader would have made it."""
    declared = []
    for short, spec in specs.items():
        chosen = (options or {}).get(short)
        declared.append(
            Declared(
                ref=Ref.parse(f"{name}/{short}"),
                spec=spec,
                options=() if chosen is None else (("fake", chosen),),
                where=f"{name}.toml:1",
            )
        )
    return Profile(name=name, path=Path(f"/{name}.toml"), resources=tuple(declared))


class Seen(msgspec.Struct, frozen=True):
    """What one resource is, on the host and in the database, without what changes by itself."""

    phase: Phase
    spec_hash: str
    size_bytes: int | None
    places: tuple[tuple[str, str, str], ...]  # of its ports: consumer, interface, address
    problems: tuple[str, ...]
    row: bytes  # of the database
    intent: str


async def picture(workspace: Workspace) -> dict[Ref, Seen]:
    """Everything that a workspace has. Two equal pictures: nothing has changed."""
    rows = workspace.store.everything()
    statuses = {status.ref: status for status in await workspace.scan()}
    found = {}
    for ref in sorted({*rows, *statuses}):
        status, row = statuses.get(ref), rows.get(ref)
        ports = () if status is None else status.ports
        found[ref] = Seen(
            phase=Phase.ABSENT if status is None else status.phase,
            spec_hash="" if status is None else status.spec_hash,
            size_bytes=None if status is None else status.size_bytes,
            places=tuple(sorted((str(port.consumer), port.interface, port.address) for port in ports if port.present)),
            problems=() if status is None else tuple(problem.code for problem in status.problems),
            row=b"" if row is None else to_json(row.desired),
            intent="" if row is None else str(row.intent),
        )
    return found


def whoever_has_which(seen: dict[Ref, Seen]) -> dict[Ref, Seen]:
    """A picture that tells who is on a network and which addresses are taken, but not by whom.

    An address is made from the name; of two that fall on the same one, who comes first has it, and they come at once.
    """
    return {
        ref: msgspec.structs.replace(
            each,
            places=(
                *((who, link, "") for who, link, _ in each.places),
                *sorted(("", "", at) for *_, at in each.places),
            ),
        )
        for ref, each in seen.items()
    }


async def assert_converged(workspace: Workspace, wanted: Profile) -> None:
    """The host is as `wanted` says, the database knows it, no step is open, and there is nothing left to do."""
    plan = await workspace.plan(wanted)
    assert plan.empty, f"still to do: {[(str(change.ref), change.action, change.reason) for change in plan.changes]}"
    assert workspace.store.interrupted() == {}
    seen = await picture(workspace)
    for item in wanted.resources:
        assert item.ref in seen, f"{item.ref} is missing"
        got = seen[item.ref]
        assert got.row, f"{item.ref} is not in the database"
        assert got.problems == ()
        assert got.phase is (Phase.RUNNING if item.ref.kind.runs else Phase.AVAILABLE), f"{item.ref} is {got.phase}"
        if isinstance(item.spec, DiskSpec):
            assert got.size_bytes == item.spec.size
        for name in getattr(item.spec, "networks", ()):
            network = seen[Ref(item.ref.profile, Kind.NETWORK, name)]
            assert str(item.ref) in [consumer for consumer, _, _ in network.places], f"{item.ref} has no port on {name}"
    kept = [ref for ref in seen if ref not in {item.ref for item in wanted.resources}]
    assert all(ref.kind is Kind.DISK for ref in kept), f"not declared, but here: {', '.join(map(str, kept))}"


def assert_nothing_left(workspace: Workspace) -> None:
    """Neither in the database nor in the simulated world, whose files go when it is empty."""
    assert workspace.store.everything() == {}
    assert workspace.store.profiles() == ()
    assert workspace.store.interrupted() == {}
    left = [path.name for path in workspace.registry.context.paths.state.iterdir()]
    assert not [name for name in left if name.startswith("fake")], f"left: {left}"


async def take_down(workspace: Workspace, name: str, emit: Emit = lambda _: None) -> None:
    """`vmtui down NAME --purge`. That there is nothing to take down is success."""
    with suppress(NotFound):
        plan = await workspace.plan_down(name, purge=True)
        outcome = await workspace.apply(plan, emit=emit)
        assert outcome.result == "converged", str(outcome.failure)
