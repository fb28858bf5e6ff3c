"""Ten thousand resources: what is added is looked at, made and written; the others are not."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.support.fakes import open_fakes, profile
from vmtui.backends.fake.script import Call, Script
from vmtui.core.lifecycle import Action
from vmtui.core.specs import DiskSpec, SandboxSpec, Spec
from vmtui.core.units import Size
from vmtui.host.paths import Paths
from vmtui.profile.schema import Profile

MANY = 10_000


def many(count: int) -> Profile:
    """Disks and, one in ten, sandboxes."""
    specs: dict[str, Spec] = {}
    for number in range(count):
        if number % 10:
            specs[f"disk/d{number}"] = DiskSpec(backend="fake", size=Size(1 << 20))
        else:
            specs[f"sandbox/s{number}"] = SandboxSpec(backend="fake", module="/m.wasm")
    return profile("many", specs)


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    root = tmp_path_factory.mktemp("many")
    paths = Paths(root / "s", root / "c", root / "r")

    async def run() -> None:
        async with open_fakes(paths) as workspace:
            plan = await workspace.plan(many(MANY))
            assert (await workspace.apply(plan, emit=lambda event: None)).result == "converged"

    asyncio.run(run())
    return paths


def by_call(script: Script) -> Counter[Call]:
    found: Counter[Call] = Counter()
    for (call, _), times in script.calls.items():
        found[call] += times
    return found


def files(paths: Paths) -> dict[str, tuple[int, int]]:
    """Inode and size of the files of the simulated world."""
    found = {}
    for path in sorted(Path(paths.state).glob("fake-*")):
        status = os.stat(path)
        found[path.name] = (status.st_ino, status.st_size)
    return found


@pytest.mark.parametrize("added", ["disk", "sandbox"])
def test_adding_one_to_ten_thousand_touches_that_one_alone(applied: Paths, added: str) -> None:
    one: Spec = (
        DiskSpec(backend="fake", size=Size(1 << 20)) if added == "disk" else SandboxSpec(backend="fake", module="/m")
    )
    before = many(MANY)
    more = profile("many", {**{item.ref.short: item.spec for item in before.resources}, f"{added}/one-more": one})
    written = files(applied)

    async def run() -> Script:
        script = Script()
        async with open_fakes(applied, script) as workspace:
            plan = await workspace.plan(more)
            assert [change.ref.short for change in plan.changes] == [f"{added}/one-more"]
            assert (await workspace.apply(plan, emit=lambda event: None)).result == "converged"
        return script

    async def take_back() -> None:
        async with open_fakes(applied) as workspace:
            plan = await workspace.plan_down("many", purge=True, only=[f"{added}/one-more"])
            assert (await workspace.apply(plan, emit=lambda event: None)).result == "converged"

    try:
        script = asyncio.run(run())
        calls = by_call(script)
        assert calls["scan"] == 5  # each backend once: one pass over its own state, whatever the number of resources
        assert (calls[Action.CREATE], calls["check"]) == (1, 1)
        assert calls[Action.START] == (1 if added == "sandbox" else 0)
        assert {ref.short for (_, ref) in script.calls if ref is not None} == {f"{added}/one-more"}
        for name, (inode, size) in files(applied).items():
            assert inode == written[name][0], f"{name} was written anew"
            assert size - written[name][1] < 8192, f"{name} grew by {size - written[name][1]} bytes for one resource"
    finally:
        asyncio.run(take_back())


def test_a_second_plan_of_ten_thousand_is_empty_and_calls_nothing(applied: Paths) -> None:
    async def run() -> Script:
        script = Script()
        async with open_fakes(applied, script) as workspace:
            assert (await workspace.plan(many(MANY))).empty
        return script

    assert set(by_call(asyncio.run(run()))) == {"scan"}
