"""SIGKILL at every single point of a run, with nothing real: what was begun is finished or taken back by the next run.

A point is each write to the database (the journal's among them), each event and each progress that a backend reports.
"""

from __future__ import annotations

import asyncio
import secrets
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
    ("first", "act", "wanted"),
    [
        pytest.param(None, bring_up, BEFORE, id="up-then-up"),
        pytest.param(None, bring_up, None, id="up-then-down"),
        pytest.param(BEFORE, change, AFTER, id="change-then-change"),
        pytest.param(BEFORE, change, BEFORE, id="change-then-back"),
        pytest.param(BEFORE, change, None, id="change-then-down"),
        pytest.param(BEFORE, fail, AFTER, id="rollback-then-change"),
        pytest.param(BEFORE, fail, BEFORE, id="rollback-then-back"),
        pytest.param(BEFORE, bring_down, None, id="down-then-down"),
        pytest.param(BEFORE, bring_down, BEFORE, id="down-then-up"),
    ],
)
def test_killed_at_any_point_the_next_run_finishes_it(
    tmp_path: Path, first: Profile | None, act: Act, wanted: Profile | None
) -> None:
    before = tmp_path / "before"
    asyncio.run(prepare(_paths(before), first))
    point = 1
    while True:
        root = tmp_path / secrets.token_hex(4)
        shutil.copytree(before, root)
        paths = _paths(root)
        killed = killed_at(point, act, paths)
        try:
            asyncio.run(mend(paths, wanted))
        except Exception as error:
            raise AssertionError(f"{act.__name__} killed at point {point}") from error
        shutil.rmtree(root)
        if not killed:
            break
        point += 1
    assert point > 10, f"{act.__name__} had only {point} points: the kills missed it"


def _paths(root: Path) -> Paths:
    paths = Paths(root / "s", root / "c", root / "r")
    paths.make()
    return paths
