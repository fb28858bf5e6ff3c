"""Simulated resources do as their script says, and the same for the same seed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from tests.support.fakes import FAKES
from vmtui.backends.fake import simulation
from vmtui.backends.fake.backend import FakeDiskBackend, FakeSandboxBackend, FakeVmBackend
from vmtui.backends.fake.options import FakeOptions
from vmtui.backends.fake.script import Effect, Script
from vmtui.backends.fake.world import Clock
from vmtui.core.backend import Attachments, Context, Desired, Progress, silent
from vmtui.core.errors import Conflict, NotFound, OperationFailed, ResourceBusy
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import DiskSpec, SandboxSpec, VmSpec, decode, spec_hash
from vmtui.core.units import Duration, Size

JOB = Ref("t", Kind.SANDBOX, "job")


class Time:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 1_000_000.0
        self.clock = Clock(now=lambda: self.at, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        await asyncio.sleep(0)


def job(options: FakeOptions | None = None) -> Desired[SandboxSpec]:
    spec = SandboxSpec(module="/m.wasm")
    return Desired(ref=JOB, backend="fake", spec=spec, options=options, spec_hash=spec_hash(spec, options))


async def started(context: Context, options: FakeOptions, time: Time) -> FakeSandboxBackend:
    backend = FakeSandboxBackend(context, clock=time.clock)
    await backend.create(job(options), silent)
    await backend.start(JOB, Attachments(), silent)
    return backend


def test_options_are_read_as_people_write_them() -> None:
    options = decode({"fail_on": ["start", "stop"], "exit_after": "1m30s", "exit_code": 3, "log": ["one"]}, FakeOptions)
    assert options.fail_on == (Action.START, Action.STOP)
    assert options.exit_after == Duration(90)
    with pytest.raises(msgspec.ValidationError, match=r"\$\.exit_code"):
        decode({"exit_code": 256}, FakeOptions)
    with pytest.raises(msgspec.ValidationError, match="boot_tme"):
        decode({"boot_tme": "1s"}, FakeOptions)


@pytest.mark.parametrize("kind", list(Kind))
async def test_the_probe_says_that_nothing_is_real(context: Context, kind: Kind) -> None:
    backend = FAKES[kind](context)
    probe = await backend.probe()
    assert probe.usable
    assert "nothing is real" in probe.summary
    assert backend.priority < 0


async def test_it_takes_its_time_and_tells(context: Context) -> None:
    time, told = Time(), list[Progress]()
    backend = FakeSandboxBackend(context, clock=time.clock)
    began = time.at
    await backend.create(job(FakeOptions(create_time=Duration(4))), told.append)
    assert time.at - began == 4
    assert [progress.fraction for progress in told] == [0.0, 0.5]


async def test_a_scripted_failure_leaves_it_as_it_was(context: Context) -> None:
    backend = FakeSandboxBackend(context)
    await backend.create(job(FakeOptions(fail_on=(Action.START,), fail_with="no luck")), silent)
    with pytest.raises(OperationFailed, match="start t/sandbox/job: no luck"):
        await backend.start(JOB, Attachments(), silent)
    assert (await backend.inspect(JOB)).phase is Phase.STOPPED


async def test_a_rule_strikes_as_often_as_it_says(context: Context) -> None:
    script = Script()
    script.on(Action.START, Effect(error=OperationFailed("once")), ref=JOB)
    script.on("scan", Effect())
    backend = FakeSandboxBackend(context, script=script)
    await backend.create(job(), silent)
    with pytest.raises(OperationFailed, match="once"):
        await backend.start(JOB, Attachments(), silent)
    await backend.start(JOB, Attachments(), silent)
    assert script.calls[Action.START, JOB] == 2


async def test_a_hang_can_be_cancelled(context: Context) -> None:
    backend = FakeSandboxBackend(context)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await backend.create(job(FakeOptions(hang_on=(Action.CREATE,))), silent)
    assert list(await backend.scan()) == []
    assert list(context.paths.state.iterdir()) == []


async def test_broken_and_vanished(context: Context) -> None:
    backend = FakeSandboxBackend(context)
    await backend.create(job(FakeOptions(break_on=(Action.START,))), silent)
    await backend.start(JOB, Attachments(), silent)
    status = await backend.inspect(JOB)
    assert status.phase is Phase.BROKEN
    assert status.problems[0].hint == "vmtui rm t/sandbox/job"
    await backend.delete(JOB, purge=True)
    await backend.create(job(FakeOptions(vanish_on=(Action.START,))), silent)
    await backend.start(JOB, Attachments(), silent)
    with pytest.raises(NotFound):
        await backend.inspect(JOB)


async def test_it_ends_when_its_time_has_come(context: Context) -> None:
    time = Time()
    backend = await started(context, FakeOptions(exit_after=Duration(10), exit_code=3, exit_reason="done"), time)
    time.at += 9.9
    assert (await backend.inspect(JOB)).phase is Phase.RUNNING
    time.at += 0.2
    status = await backend.inspect(JOB)
    assert status.phase is Phase.EXITED
    assert status.exit is not None
    assert (status.exit.code, status.exit.reason) == (3, "done")
    assert status.exit.at == pytest.approx(time.at - 0.1)


async def test_watchers_are_told_of_an_end_that_nobody_caused(context: Context) -> None:
    time = Time()
    backend = await started(context, FakeOptions(exit_after=Duration(0.3)), time)
    async with asyncio.timeout(60), aclosing(backend.watch()) as changes:  # type: ignore[type-var]
        told = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)  # it has begun: only ends after that are told
        time.at += 0.4
        assert await told == JOB
    assert (await backend.inspect(JOB)).phase is Phase.EXITED


async def test_the_log_comes_over_time(context: Context) -> None:
    time = Time()
    options = FakeOptions(log=("a", "b", "c"), boot_time=Duration(4), ready_line="ready", ready_after=Duration(6))
    backend = await started(context, options, time)

    async def log() -> list[str]:
        return [line.text async for line in backend.logs(JOB, tail=None, follow=False)]

    assert await log() == ["a"]
    time.at += 2
    assert await log() == ["a", "b"]
    time.at += 4
    assert await log() == ["a", "b", "c", "ready"]


async def test_a_slow_stop_is_cut_short_by_the_grace_period(context: Context) -> None:
    time = Time()
    backend = await started(context, FakeOptions(stop_time=Duration(60)), time)
    began = time.at
    await backend.stop(JOB, grace_s=5)
    assert time.at - began == 5
    assert (await backend.inspect(JOB)).phase is Phase.STOPPED


async def test_the_same_seed_shows_the_same(context: Context) -> None:
    async def shown(seed: int) -> Any:
        time = Time()
        backend = await started(context, FakeOptions(seed=seed), time)
        time.at += 100
        sample = await backend.stats(JOB)
        lines = [line.text async for line in backend.logs(JOB, tail=None, follow=False)]
        await backend.delete(JOB, purge=True)
        return sample, lines

    assert await shown(1) == await shown(1)
    assert await shown(1) != await shown(2)


def test_counters_never_fall() -> None:
    for seed in range(50):
        wave = simulation.Wave.of(seed)
        points = [wave.until(t / 4) for t in range(4000)]
        assert points == sorted(points)
        assert all(0 <= wave.at(t) <= 1 for t in range(1000))


async def test_a_disk_in_use_is_left_alone(context: Context) -> None:
    disk, guest, other = Ref("t", Kind.DISK, "d"), Ref("t", Kind.VM, "g"), Ref("t", Kind.VM, "o")
    disks, vms = FakeDiskBackend(context), FakeVmBackend(context)
    spec, vm = DiskSpec(size=Size(1 << 20)), VmSpec(kernel="/k")
    desired = Desired(ref=disk, backend="fake", spec=spec, spec_hash="d")
    await disks.create(desired, silent)
    await vms.create(Desired(ref=guest, backend="fake", spec=vm, spec_hash="v"), silent)
    await vms.start(guest, Attachments(disks=(await disks.attach(disk, guest),)), silent)
    assert await disks.attach(disk, guest)
    for refused in (
        disks.attach(disk, other),
        disks.delete(disk, purge=True),
        disks.resize(msgspec.structs.replace(desired, spec=DiskSpec(size=Size(2 << 20))), shrink=False, report=silent),
    ):
        with pytest.raises(ResourceBusy, match="t/vm/g"):
            await refused
    await vms.stop(guest, grace_s=1)
    await disks.delete(disk, purge=True)


async def test_what_carries_another_mark_is_not_ours(context: Context) -> None:
    await FakeSandboxBackend(msgspec.structs.replace(context, workspace="ffffffff")).create(job(), silent)
    mine = FakeSandboxBackend(context)
    assert list(await mine.scan()) == []
    await mine.delete(JOB, purge=True)
    with pytest.raises(Conflict, match="another workspace"):
        await mine.create(job(), silent)
    assert list(context.paths.state.iterdir()) != []
