"""SIGKILL at every single point of a run, with nothing real: what was begun is finished or taken back by the next run.

A point is each write to the database (the journal's among them), each event and each progress that a backend reports.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from pathlib import Path

import pytest

from tests.support.crash import Act, Tick, TickingStore, killed_at
from tests.support.fakes import (
    FakeRegistry,
    assert_converged,
    assert_nothing_left,
    open_fakes,
    profile,
    take_down,
)
from vmtui.backends.fake.options import FakeOptions
from vmtui.core.lifecycle import Action
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, SandboxSpec, VmSpec
from vmtui.core.units import Publish, Size
from vmtui.engine.store import open_context
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.schema import Profile

FAKE = "fake"
MIB = 1 << 20
BEFORE = profile(
    "dev",
    {
        "network/lab": NetworkSpec(backend=FAKE, subnet="10.77.1.0/24"),
        "disk/data": DiskSpec(backend=FAKE, size=Size(MIB), shrink=True),
        "vm/guest": VmSpec(backend=FAKE, kernel="/boot/linux", networks=("lab",), disks=("data",)),
        "container/web": ContainerSpec(backend=FAKE, image="oci:/i", networks=("lab",), ports=(Publish(8080, 80),)),
        "sandbox/hello": SandboxSpec(backend=FAKE, module="/m.wasm"),
    },
)
AFTER = profile(  # the network is made anew, the disk grows, the VM restarts, one goes, one comes, one is made anew
    "dev",
    {
        "network/lab": NetworkSpec(backend=FAKE, subnet="10.77.2.0/24"),
        "disk/data": DiskSpec(backend=FAKE, size=Size(2 * MIB)),
        "vm/guest": VmSpec(backend=FAKE, kernel="/boot/linux", networks=("lab",), disks=("data",)),
        "container/web": ContainerSpec(backend=FAKE, image="oci:/j", networks=("lab",), ports=(Publish(8080, 80),)),
        "sandbox/other": SandboxSpec(backend=FAKE, module="/m.wasm"),
    },
)
FAILING = profile(
    "dev",
    {item.ref.short: item.spec for item in AFTER.resources},
    {"sandbox/other": FakeOptions(fail_on=(Action.START,))},
)


async def converge(workspace: Workspace, wanted: Profile, tick: Tick = lambda what=None: None) -> str:
    plan = await workspace.plan(wanted)
    return (await workspace.apply(plan, emit=tick)).result


def ticking(paths: Paths, tick: Tick) -> Workspace:
    context = open_context(paths)
    return Workspace(FakeRegistry(context), TickingStore(context, tick))


async def bring_up(tick: Tick, paths: Paths) -> None:
    async with ticking(paths, tick) as workspace:
        assert await converge(workspace, BEFORE, tick) == "converged"


async def change(tick: Tick, paths: Paths) -> None:
    async with ticking(paths, tick) as workspace:
        assert await converge(workspace, AFTER, tick) == "converged"


async def fail(tick: Tick, paths: Paths) -> None:
    async with ticking(paths, tick) as workspace:
        assert await converge(workspace, FAILING, tick) == "rolled-back"


async def bring_down(tick: Tick, paths: Paths) -> None:
    async with ticking(paths, tick) as workspace:
        await take_down(workspace, "dev", tick)


async def prepare(paths: Paths, first: Profile | None) -> None:
    async with open_fakes(paths) as workspace:
        if first is not None:
            assert await converge(workspace, first) == "converged"


async def mend(paths: Paths, wanted: Profile | None) -> None:
    """The next run after the kill: towards `wanted` (None: down), and then down for good."""
    async with open_fakes(paths) as workspace:
        if wanted is not None:
            assert await converge(workspace, wanted) == "converged"
            await assert_converged(workspace, wanted)
        await take_down(workspace, "dev")
        assert_nothing_left(workspace)


@pytest.mark.parametrize(
    ("first", "act", "then"),
    [
        pytest.param(None, bring_up, (BEFORE, None), id="up"),
        pytest.param(BEFORE, change, (AFTER, BEFORE, None), id="change"),
        pytest.param(BEFORE, fail, (AFTER, BEFORE), id="rollback"),
        pytest.param(BEFORE, bring_down, (None, BEFORE), id="down"),
    ],
)
def test_killed_at_any_point_the_next_run_finishes_it(
    tmp_path: Path, first: Profile | None, act: Act, then: tuple[Profile | None, ...]
) -> None:
    """`then` is what the next run wants: the same, what was before, or nothing at all (None)."""
    before = tmp_path / "before"
    asyncio.run(prepare(_paths(before), first))
    for point in itertools.count(1):
        killed = tmp_path / "killed"
        shutil.copytree(before, killed)
        alive = not killed_at(point, act, _paths(killed))
        for number, wanted in enumerate(then):
            root = tmp_path / f"{point}-{number}"
            shutil.copytree(killed, root)
            try:
                asyncio.run(mend(_paths(root), wanted))
            except Exception as error:
                aim = "down" if wanted is None else "before" if wanted is first else "the same"
                raise AssertionError(f"{act.__name__} killed at point {point}, then {aim}") from error
            shutil.rmtree(root)
        shutil.rmtree(killed)
        if alive:
            break
    assert point > 10, f"{act.__name__} had only {point} points: the kills missed it"


def _paths(root: Path) -> Paths:
    paths = Paths(root / "s", root / "c", root / "r")
    paths.make()
    return paths
