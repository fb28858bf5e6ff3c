"""Sandboxes from their start to their end: stopped, killed, cut off, many at once; and what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support import wat
from tests.support.crash import Tick, killed_at
from tests.support.remains import remains_of
from tests.support.sandboxes import END_S, Sandboxes, status_of
from vmtui.backends.wasm.backend import WasmBackend
from vmtui.backends.wasm.program import Launch, Volume, wasmtime_version
from vmtui.backends.wasm.state import Running, load, observe
from vmtui.core.backend import Attachments, Context, Desired, silent
from vmtui.core.errors import NotFound, OperationFailed
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Ref, Status
from vmtui.host.paths import data_dir
from vmtui.host.process import ProcessId, run
from vmtui.host.process import running as processes

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

ROOT = os.geteuid() == 0


async def test_stop_and_kill(sandboxes: Sandboxes) -> None:
    ref = await sandboxes.start(wat.SPIN)
    await sandboxes.backend.stop(ref, grace_s=60)
    status = await sandboxes.backend.inspect(ref)
    assert status.exit is not None
    assert (status.phase, status.exit.code, status.exit.reason) == (Phase.STOPPED, 143, "stopped")
    await sandboxes.backend.start(ref, Attachments(), silent)
    await sandboxes.backend.pause(ref)
    await sandboxes.backend.stop(ref, grace_s=60)
    assert (await sandboxes.backend.inspect(ref)).phase is Phase.STOPPED
    await sandboxes.backend.start(ref, Attachments(), silent)
    await sandboxes.backend.kill(ref)
    status = await sandboxes.backend.inspect(ref)
    assert status.exit is not None
    assert (status.phase, status.exit.code, status.exit.reason) == (Phase.EXITED, 137, "killed by SIGKILL")
    assert status.fact("compile cache") == "hit"


async def identities(sandboxes: Sandboxes, ref: Ref) -> tuple[ProcessId, ProcessId]:
    """The monitor and its guest."""
    pid = (await sandboxes.backend.inspect(ref)).pid
    assert pid is not None
    monitor, guest = ProcessId.of(int(status_of(pid)["PPid"])), ProcessId.of(pid)
    assert monitor is not None
    assert guest is not None
    return monitor, guest


async def test_a_killed_monitor_takes_its_guest_along_and_is_missed(sandboxes: Sandboxes) -> None:
    ref = await sandboxes.start(wat.SPIN)
    monitor, guest = await identities(sandboxes, ref)
    changes = sandboxes.backend.watch()
    told = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.2)
    monitor.signal(signal.SIGKILL)
    assert await monitor.wait(END_S)
    assert await guest.wait(END_S)
    assert await asyncio.wait_for(told, END_S) == ref
    await changes.aclose()  # type: ignore[attr-defined]
    status = await sandboxes.backend.inspect(ref)
    assert (status.phase, [problem.code for problem in status.problems]) == (Phase.BROKEN, ["vanished"])
    assert await sandboxes.said(ref) == []
    await sandboxes.backend.start(ref, Attachments(), silent)
    assert (await sandboxes.backend.inspect(ref)).phase is Phase.RUNNING


async def test_the_compile_cache(sandboxes: Sandboxes) -> None:
    ref = await sandboxes.start(wat.exits(9))
    await sandboxes.ended(ref)
    folder = sandboxes.context.paths.cache / "wasm"
    (entry,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, entry.stat().st_mode & 0o777) == (0o700, 0o600)

    async def again() -> tuple[int, str]:
        await sandboxes.backend.start(ref, Attachments(), silent)
        status = await sandboxes.ended(ref)
        assert status.exit is not None
        return status.exit.code, status.fact("compile cache")

    assert await again() == (9, "hit")
    good = entry.read_bytes()
    for damaged in (good[:100], good[:-1] + b"\xff", b"", bytes(32) + b"\x7fELF"):
        entry.write_bytes(damaged)
        assert await again() == (9, "miss: entry refused, it is damaged")
        assert await again() == (9, "hit")
    entry.chmod(0o644)
    assert await again() == (9, "miss: entry refused, it is not ours alone")
    entry.unlink()
    entry.symlink_to("/etc/passwd")
    assert (await again())[1].startswith("miss: entry refused")
    assert await again() == (9, "hit")
    if ROOT:
        os.chown(entry, 12345, 12345)
        assert await again() == (9, "miss: entry refused, it is not ours alone")
    folder.chmod(0o777)
    assert await again() == (9, f"unusable: {folder} is not ours alone")
    folder.chmod(0o700)
    entry.unlink()
    assert await again() == (9, "miss")


async def test_a_changed_copy_is_not_run(sandboxes: Sandboxes) -> None:
    desired = sandboxes.desired(wat.exits(0))
    await sandboxes.backend.create(desired, silent)
    (sandboxes.context.resource_dir(desired.ref) / "module").write_text(wat.exits(1))
    for entry in (sandboxes.context.paths.cache / "wasm").iterdir():
        entry.unlink()
    with pytest.raises(OperationFailed, match="is not what it was made from"):
        await sandboxes.backend.start(desired.ref, Attachments(), silent)
    assert (await sandboxes.backend.inspect(desired.ref)).phase is Phase.STOPPED


@pytest.mark.parametrize("delay_ms", [0, 5, 15, 25, 35, 45, 55, 70, 100])
async def test_a_start_cancelled_anywhere_leaves_it_stopped(sandboxes: Sandboxes, delay_ms: int) -> None:
    desired = sandboxes.desired(wat.SLEEP)
    await sandboxes.backend.create(desired, silent)
    task = asyncio.create_task(sandboxes.backend.start(desired.ref, Attachments(), silent))
    await asyncio.sleep(delay_ms / 1000)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    phase = (await sandboxes.backend.inspect(desired.ref)).phase
    assert phase is (Phase.STOPPED if task.cancelled() else Phase.RUNNING)


async def test_twenty_at_once(sandboxes: Sandboxes) -> None:
    source = wat.speaks("one of many", then="(call $sleep_ms (i64.const 300))")
    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        tasks = [group.create_task(sandboxes.result(source, f"many-{n}")) for n in range(20)]
    assert {task.result() for task in tasks} == {(0, "")}
    assert len(await sandboxes.backend.scan()) == 20


async def test_the_probe_runs_a_module(sandboxes: Sandboxes) -> None:
    probe = await sandboxes.backend.probe()
    assert (probe.usable, probe.problems) == (True, ())
    assert await sandboxes.backend.probe() == probe


async def test_what_is_not_there(sandboxes: Sandboxes) -> None:
    ref = Ref("test", Kind.SANDBOX, "nobody")
    with pytest.raises(NotFound):
        await sandboxes.backend.start(ref, Attachments(), silent)
    with pytest.raises(NotFound):
        await sandboxes.said(ref)


async def test_the_module_of_the_demo(sandboxes: Sandboxes) -> None:
    source = (data_dir("profiles") / "hello.wat").read_text()
    ref = await sandboxes.start(source, args=("one", "two"), environment={"PLACE": "here"})
    status = await sandboxes.ended(ref)
    assert status.exit is not None
    assert (status.exit.code, status.exit.reason) == (0, "")
    assert await sandboxes.said(ref) == [
        "hello from a WASM sandbox",
        "argument: one",
        "argument: two",
        "environment: PLACE=here",
        "primes below 100000: 9592",
    ]


async def _start(tick: Tick, context: Context, desired: Desired[Any], after_s: float) -> None:
    task = asyncio.create_task(WasmBackend(context).start(desired.ref, Attachments(), silent))
    await asyncio.wait([task], timeout=after_s)
    if not task.done():
        tick()
    await task


async def settled(sandboxes: Sandboxes, ref: Ref) -> Status:
    """Its status once a start that was cut off has come to its end: its own two processes run, or none."""
    program, variables = ("-m", "vmtui.sandbox", "run"), sandboxes.context.paths.environment()
    deadline = time.monotonic() + END_S
    while True:
        status = await sandboxes.backend.inspect(ref)
        pids = {process.pid for process in processes(program, variables)}
        with contextlib.suppress(OSError):  # it has just ended
            if status.pid is not None:
                pids -= {status.pid, int(status_of(status.pid)["PPid"])}
            if not pids:
                return status
        assert time.monotonic() < deadline, f"processes {pids} go on, and it is {status.phase}"
        await asyncio.sleep(0.02)


async def test_a_start_whose_front_end_is_killed_anywhere(sandboxes: Sandboxes) -> None:
    desired = sandboxes.desired(wat.SLEEP)
    phases: list[Phase] = []
    killed, after_s, deadline = True, 0.0, time.monotonic() + 300
    while killed:
        await sandboxes.backend.create(desired, silent)
        killed = await asyncio.to_thread(killed_at, 1, _start, sandboxes.context, desired, after_s)
        status = await settled(sandboxes, desired.ref)
        assert status.problems == ()
        phases.append(status.phase)
        if len(phases) % 2:
            await sandboxes.backend.start(desired.ref, Attachments(), silent)
            assert (await sandboxes.backend.inspect(desired.ref)).phase is Phase.RUNNING
        await sandboxes.backend.delete(desired.ref, purge=True)
        left = await remains_of(sandboxes.context, [desired.ref])
        assert left == "", f"killed after {after_s:.3f} s:\n{left}"
        after_s += max(0.008, after_s / 4)  # on a busy machine a start may take seconds
        assert not killed or time.monotonic() < deadline, "a start does not come to its end"
    assert set(phases) == {Phase.STOPPED, Phase.RUNNING}
    assert phases[0] is Phase.STOPPED
    assert phases[-1] is Phase.RUNNING


@pytest.mark.skipif(not ROOT, reason="the rest of this file runs without root then")
async def test_a_plain_user_has_sandboxes_too(tmp_path: Path) -> None:
    """The program by itself, as another user; the capability is to read an interpreter in root's folder."""
    user, folder = 54321, Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    try:
        source = wat.module("(call $sleep_ms (i64.const 5000)) (call $proc_exit (i32.const 7))").encode()
        (folder / "module").write_bytes(source)
        shutil.chown(folder, user, user)
        launch = Launch(
            directory=str(folder), sha256=hashlib.sha256(source).hexdigest(), cache=str(folder / "cache"),
            wasmtime=wasmtime_version(), entrypoint="_start", memory_bytes=1 << 20, uid=0, args=("x",),
            volumes=(Volume(source=str(folder), target="/data", read_only=True),),
        )  # fmt: skip
        caps = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
        identity = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", *caps]
        done = await run(
            [*identity, sys.executable, "-I", "-m", "vmtui.sandbox", "run"],
            stdin=msgspec.json.encode(launch),
            check=False,
        )
        assert done.code == 0, done
        running = load(folder / "process.json", Running)
        assert running is not None
        seen = status_of(running.guest.pid)
        assert (seen["NoNewPrivs"], seen["Seccomp"], seen["CapEff"]) == ("1", "2", "0" * 16)
        assert set(seen["Uid"].split()) == {str(user)}
        assert len(Path(f"/proc/{running.guest.pid}/net/dev").read_text().splitlines()) == 3
        assert await running.monitor.process.wait(END_S)
        end = observe(folder).exit
        assert end is not None
        assert end.code == 7
    finally:
        shutil.rmtree(folder)


async def test_two_front_ends_start_one_process(sandboxes: Sandboxes) -> None:
    desired = sandboxes.desired(wat.SLEEP)
    await sandboxes.backend.create(desired, silent)
    others = [WasmBackend(sandboxes.context) for _ in range(4)]
    starts = [other.start(desired.ref, Attachments(), silent) for other in others]
    results = await asyncio.gather(*starts, return_exceptions=True)
    assert results.count(None) == 1
    assert {str(result) for result in results if result is not None} == {f"{desired.spec.module}: it runs already"}


@pytest.mark.skipif(not ROOT, reason="only root mounts a small file system")
async def test_no_space_left(sandboxes: Sandboxes) -> None:
    state = sandboxes.context.paths.state
    await run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", state])
    try:
        large = wat.exits(0) + f";; {'x' * 300_000}\n"
        with pytest.raises(OperationFailed, match=r"(?i)no space left"):
            await sandboxes.backend.create(sandboxes.desired(large), silent)
        assert list(state.iterdir()) == []
        desired = sandboxes.desired(wat.exits(0))
        await sandboxes.backend.create(desired, silent)
        with contextlib.suppress(OSError), (state / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        with pytest.raises(OperationFailed, match=r"(?i)no space left"):
            await sandboxes.backend.start(desired.ref, Attachments(), silent)
        assert (await sandboxes.backend.inspect(desired.ref)).phase is Phase.STOPPED
        (state / "filler").unlink()
        await sandboxes.backend.start(desired.ref, Attachments(), silent)
        status = await sandboxes.ended(desired.ref)
        assert status.exit is not None
        assert status.exit.code == 0
        assert not any(entry.name.startswith(".") for entry in sandboxes.context.resource_dir(desired.ref).iterdir())
        await sandboxes.backend.delete(desired.ref, purge=True)
    finally:
        await run(["umount", "-l", state])
