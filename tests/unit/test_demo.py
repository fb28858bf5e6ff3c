"""The demo: many resources at once that all behave as if they had been applied, that move, and that leave nothing."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest

from vmtui.core.backend import ExecRequest
from vmtui.core.errors import NotFound, NotPermitted, OperationFailed
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Kind, Ref, Status
from vmtui.engine import moving
from vmtui.engine.demo import LARGEST, Demo, open_demo, sweep
from vmtui.engine.estate import Estate
from vmtui.engine.registry import option_types
from vmtui.host.paths import Paths
from vmtui.host.process import ProcessId
from vmtui.profile.load import load

WEB = Ref("shop", Kind.CONTAINER, "web")
DB = Ref("shop", Kind.VM, "db")


@pytest.fixture
async def demo(paths: Paths) -> AsyncIterator[Demo]:
    async with await open_demo(paths, moving=False) as opened:
        yield opened


async def scanned(demo: Demo) -> dict[Ref, Status]:
    return {status.ref: status for status in await demo.scan()}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 39, 40, 41, 100, 999, 1000, 1001, 4321, 10_000])
def test_an_estate_has_as_many_as_are_wanted_and_no_name_twice(size: int) -> None:
    estate = Estate(size)
    refs = [estate.pick(number) for number in range(size)]
    assert len(set(refs)) == size == sum(len(estate.slots(profile)) for profile in estate.profiles)
    with pytest.raises(IndexError):
        estate.pick(size)
    own = [
        str(value) for profile in estate.profiles for at in range(len(estate.slots(profile)))
        for value in estate.own(profile, at).values()
    ]  # fmt: skip
    assert len(set(own)) == len(own), "a subnet or a host port is given twice"


async def test_forty_of_all_kinds_and_states(demo: Demo) -> None:
    found = await scanned(demo)
    assert len(found) == 40
    assert {ref.profile for ref in found} == {"shop", "ci", "edge", "home"} == set(demo.profiles())
    assert {ref.kind for ref in found} == set(Kind)
    assert {status.phase for status in found.values()} == set(Phase) - {Phase.ABSENT}
    assert {status.exit.code for status in found.values() if status.exit} >= {0, 1}
    assert all(status.backend == "fake" for status in found.values())
    assert found[WEB].endpoints
    assert found[WEB].addresses
    assert [status.ref for status in found.values() if status.problems]


async def test_it_is_the_same_each_time(paths: Paths, demo: Demo) -> None:
    async with await open_demo(paths, moving=False) as other:
        one, two = await scanned(demo), await scanned(other)
    assert list(one) == list(two)
    assert [status.phase for status in one.values()] == [status.phase for status in two.values()]
    for ref in one:
        mine, theirs = one[ref].started_at, two[ref].started_at
        assert mine == theirs or (mine and theirs and abs(mine - theirs) < 60)


@pytest.mark.parametrize("size", [6, 40, 1000])
async def test_each_profile_plans_to_what_is_there(paths: Paths, size: int) -> None:
    async with await open_demo(paths, size, moving=False) as demo:
        found = await scanned(demo)
        for profile in demo.profiles():
            (path,) = (paths.runtime / "demo").glob(f"*/profiles/{profile}.toml")
            plan = await demo.plan(load(path, option_types))
            drifted = {change.ref for change in plan.changes}
            down = (Phase.STOPPED, Phase.EXITED, Phase.BROKEN, Phase.PAUSED)
            assert drifted <= {ref for ref, status in found.items() if status.phase in down}


async def test_everything_works_on_it(demo: Demo) -> None:
    before = (await scanned(demo))[WEB]
    stopped = await demo.act(WEB, Action.STOP, emit=lambda _: None)
    assert stopped is not None
    assert (stopped.phase, stopped.addresses) == (Phase.STOPPED, ())
    started = await demo.act(WEB, Action.START, emit=lambda _: None)
    assert started is not None
    assert (started.phase, started.addresses, started.endpoints) == (Phase.RUNNING, before.addresses, before.endpoints)
    lines = [line.text async for line in demo.logs(WEB, tail=5, follow=False)]
    assert len(lines) == 5
    session = await demo.exec(WEB, ExecRequest(argv=("echo", "hello")))
    assert await session.read() == ("stdout", b"hello\n")
    console = await demo.console(DB)
    assert await console.read() == b"db:/# "
    await console.aclose()
    assert (await demo.inspect(DB)).addresses
    assert (await demo.stats(DB)).memory_bytes
    assert set(demo.references(DB)[0]) == {Ref("shop", Kind.DISK, "orders"), Ref("shop", Kind.NETWORK, "back")}
    with pytest.raises(NotPermitted, match="is used by shop/vm/db"):
        await demo.act(Ref("shop", Kind.DISK, "orders"), Action.DELETE, emit=lambda _: None, purge=True)
    plan = await demo.plan_down("home", purge=True)
    assert (await demo.apply(plan, emit=lambda _: None)).result == "converged"
    assert {ref.profile for ref in await scanned(demo)} == {"shop", "ci", "edge"}


async def test_only_simulated_backends_are_there_and_auto_takes_them(demo: Demo, tmp_path: Path) -> None:
    assert demo.backends() == dict.fromkeys(Kind, ("fake",))
    assert {(probe.backend, probe.usable) for probe in await demo.probe()} == {("fake", True)}
    with pytest.raises(NotFound, match="no backend 'qemu'"):
        demo.registry.get(Kind.VM, "qemu")
    path = tmp_path / "mine.toml"
    path.write_text('[vm.one]\nkernel = "deb:linux"\n')
    outcome = await demo.apply(await demo.plan(load(path, option_types)), emit=lambda _: None)
    assert outcome.result == "converged"


async def test_nothing_is_left_and_what_a_crash_left_goes(paths: Paths) -> None:
    parent = paths.runtime / "demo"
    async with await open_demo(paths, 4):
        me = ProcessId.of(os.getpid())
        assert me is not None
        stale = [parent / "1.1.other-boot.abc", parent / f"{os.getpid()}.{me.start_ticks + 1}.{me.boot}.abc"]
        kept = [parent / f"{os.getpid()}.{me.start_ticks}.{me.boot}.abc", parent / "not-ours"]
        for path in (*stale, *kept):
            (path / "state").mkdir(parents=True)
        sweep(parent)
        assert [path.exists() for path in (*stale, *kept)] == [False, False, True, True]
        assert len(list(parent.iterdir())) == 3
    assert sorted(path.name for path in parent.iterdir()) == sorted(path.name for path in kept)
    assert not (paths.state / "state.db").exists(), "the person's own workspace is touched"


async def test_a_size_that_cannot_be_is_refused(paths: Paths) -> None:
    with pytest.raises(OperationFailed, match="up to"):
        await open_demo(paths, LARGEST + 1)
    async with await open_demo(paths, 0) as demo:
        assert await demo.scan() == ()


class Quick:
    """A clock that runs ahead when somebody sleeps."""

    def __init__(self, demo: Demo) -> None:
        self.at = time.time()
        self.clock = moving.Clock(now=lambda: self.at, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        await asyncio.sleep(0.001)


async def test_it_moves_and_mends_itself(demo: Demo) -> None:
    seen: set[Ref] = set()
    phases: set[tuple[Ref, Phase]] = set()

    async def watch() -> None:
        async with aclosing(demo.watch()) as changes:  # type: ignore[type-var]
            async for ref in changes:
                seen.add(ref)
                status = (await demo.refresh([ref]))[ref]
                if status is not None:
                    phases.add((ref, status.phase))

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.05)
    mover = asyncio.create_task(moving.move(demo, demo.estate, random.Random(1), Quick(demo).clock))
    await asyncio.sleep(4)
    mover.cancel()
    await asyncio.sleep(0.05)
    watcher.cancel()
    assert not mover.done() or mover.cancelled()
    assert len(seen) > 10
    assert {phase for _, phase in phases} >= {Phase.EXITED, Phase.RUNNING}
    assert {event.verb for event in demo.events()} >= {"exit", "start", "stop"}
    assert {event.by for event in demo.events()} == {"the simulation"}
    assert len(await demo.scan()) == 40


async def test_a_share_of_all_changes_each_second(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    portions = 0

    async def sleep(seconds: float) -> None:
        nonlocal portions
        portions += seconds <= 1 / moving.CHANGES_PER_S  # all else that happens waits longer
        await asyncio.sleep(seconds)

    monkeypatch.setattr(moving, "Clock", partial(moving.Clock, sleep=sleep))
    async with await open_demo(paths, 1000, moving=False) as demo:

        async def fifty() -> None:
            async with aclosing(demo.watch()) as changes:  # type: ignore[type-var]
                for _ in range(50):
                    await anext(changes)

        watcher = asyncio.create_task(fifty())
        await asyncio.sleep(0.1)
        began = time.monotonic()
        demo.set_moving(change=0.05)
        await asyncio.wait_for(watcher, 60)
        passed = time.monotonic() - began
        assert passed > 0.7, "they are about four portions, of which the first comes at once"
        assert 3 <= portions <= 10  # a busy machine makes them come later, not smaller


async def test_ten_thousand_come_without_a_long_pause(paths: Paths) -> None:
    """Generous, for a machine that does other things too; bench/ measures."""
    gaps: list[float] = []

    async def tick() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            gaps.append(now - last)
            last = now

    ticker = asyncio.create_task(tick())
    async with await open_demo(paths, 10_000, moving=False) as demo:
        assert len(await demo.scan()) == 10_000
    ticker.cancel()
    assert sorted(gaps)[-10] < 0.2
