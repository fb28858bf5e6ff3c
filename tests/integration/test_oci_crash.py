"""Containers whose keepers die: conmon, the container itself, the front end at every step of a start."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.again import Again
from tests.support.containers import Yard
from vmtui.backends.oci.observe import container_process
from vmtui.backends.oci.places import Places
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Ref
from vmtui.host.process import ProcessId

pytestmark = pytest.mark.real

# A front end that is killed in the middle: before the NAMED function of the start, or after it.
FRONT_END = """
import asyncio, os, signal, sys
from pathlib import Path
from vmtui.backends.oci.backend import OciBackend
from vmtui.backends.oci import launch, names
from vmtui.core.backend import Attachments, silent
from vmtui.core.resource import Ref
from vmtui.host.paths import Paths
from vmtui.runtime.oci_runtime import Containers
from tests.support.containers import MarkedContext

state, cache, runtime, workspace, ref, point, when = sys.argv[1:]
context = MarkedContext(paths=Paths(Path(state), Path(cache), Path(runtime)), workspace=workspace)
owner, name = {
    "clear": (launch, "clear"),
    "names": (names, "write"),
    "overlay": (launch, "mount_overlay"),
    "config": (launch, "config_json"),
    "create": (launch.conmon, "create"),
    "plug": (launch, "plug"),
    "start": (Containers, "start"),
}[point]
real = getattr(owner, name)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

if asyncio.iscoroutinefunction(real):
    async def dying(*args, **more):
        if when == "before":
            die()
        if when == "during":
            asyncio.get_running_loop().call_later(0.02, die)
        await real(*args, **more)
        die()
else:
    def dying(*args, **more):
        if when == "before":
            die()
        real(*args, **more)
        die()
setattr(owner, name, dying)
asyncio.run(OciBackend(context).start(Ref.parse(ref), Attachments(), silent))
"""


async def start_and_die(yard: Yard, ref: Ref, point: str, when: str) -> None:
    paths = yard.context.paths
    arguments = [str(paths.state), str(paths.cache), str(paths.runtime), yard.context.workspace, str(ref), point, when]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FRONT_END, *arguments, cwd=Path.cwd())
    async with asyncio.timeout(120):
        assert await process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("after", ["delete", "start"])
@pytest.mark.parametrize(
    ("point", "when"),
    [
        *(
            (point, when)
            for point in ("clear", "names", "overlay", "config", "create", "plug", "start")
            for when in ("before", "after")
        ),
        ("create", "during"),
        ("start", "during"),
    ],
)
async def test_a_front_end_that_is_killed_while_it_starts_one(yard: Yard, point: str, when: str, after: str) -> None:
    ref = await yard.create(yard.want("echo up; exec sleep 600"))
    await start_and_die(yard, ref, point, when)
    status = await yard.backend.inspect(ref)
    assert status.phase in (Phase.STOPPED, Phase.RUNNING)
    assert "/mnt" not in [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    if after == "start":
        await yard.start(ref)
        status = await yard.backend.inspect(ref)
        assert (status.phase, status.problems) == (Phase.RUNNING, ())
        await yard.says(ref, "up")
    else:
        await yard.backend.delete(ref, purge=True)
        assert yard.view().empty, str(yard.view())


async def test_conmon_is_killed(yard: Yard) -> None:
    ref = await yard.up("echo up; exec sleep 600")
    await yard.says(ref, "up")
    parent = Places(yard.context, ref).conmon.conmon()
    assert parent is not None
    first = (await yard.backend.inspect(ref)).pid
    parent.signal(signal.SIGKILL)
    await parent.wait(60)
    status = await yard.backend.inspect(ref)
    assert status.phase is Phase.BROKEN
    assert [problem.code for problem in status.problems] == ["parent-lost"]
    await yard.start(ref)
    status = await yard.backend.inspect(ref)
    assert (status.phase, status.problems) == (Phase.RUNNING, ())
    assert status.pid != first
    assert first is not None
    assert ProcessId.of(first) is None


async def test_conmon_and_the_container_are_killed(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600")
    places = Places(yard.context, ref)
    parent, process = places.conmon.conmon(), container_process(places)
    assert parent is not None
    assert process is not None
    parent.signal(signal.SIGKILL)
    process.signal(signal.SIGKILL)
    await parent.wait(60)
    await process.wait(60)
    status = await yard.backend.inspect(ref)
    assert status.phase is Phase.EXITED
    assert status.exit is not None
    assert "conmon" in status.exit.reason
    await yard.start(ref)
    assert (await yard.backend.inspect(ref)).phase is Phase.RUNNING


async def test_the_container_is_killed(yard: Yard) -> None:
    ref = await yard.up("sleep 700 & exec sleep 600")
    process = container_process(Places(yard.context, ref))
    assert process is not None
    process.signal(signal.SIGKILL)
    status = await yard.comes_to(ref, Phase.EXITED)
    assert status.exit is not None
    assert status.exit.code == 137
    await yard.start(ref)
    assert (await yard.backend.inspect(ref)).phase is Phase.RUNNING


async def test_after_a_reboot_it_is_stopped(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600")
    await yard.backend.kill(ref)
    places = Places(yard.context, ref)
    state = places.read_state()
    assert state is not None
    data = places.state.read_text()
    places.state.write_text(data.replace(state.boot, "0" * len(state.boot)))
    status = await yard.backend.inspect(ref)
    assert (status.phase, status.exit, status.problems) == (Phase.STOPPED, None, ())
    await yard.start(ref)


async def test_a_recycled_pid_is_nobody(yard: Yard) -> None:
    ref = await yard.create(yard.want("exec sleep 600"))
    await yard.start(ref)
    places = Places(yard.context, ref)
    parent, process = places.conmon.conmon(), container_process(places)
    assert parent is not None
    assert process is not None
    bystander = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        parent.signal(signal.SIGKILL)
        process.signal(signal.SIGKILL)
        await process.wait(60)
        for file in (places.conmon.conmon_pid, places.conmon.container_pid):
            file.write_text(str(bystander.pid))
        assert (await yard.backend.inspect(ref)).phase is Phase.EXITED
        await yard.backend.stop(ref, grace_s=0)
        await yard.backend.delete(ref, purge=True)
        assert ProcessId.of(bystander.pid) is not None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_the_exit_command_can_start_it_again(yard: Yard) -> None:
    """As a restart policy does: the process that clears the old conmon is that conmon's own child."""
    ref = await yard.create(yard.want("echo run >> /runs; cat /runs; test $(wc -l < /runs) -ge 3 && exec sleep 600"))
    again = Again(paths=yard.context.paths, workspace=yard.context.workspace)
    environment = dict(os.environ, PYTHONPATH=str(Path.cwd()))  # of the first, and of those that it leads to
    process = await asyncio.create_subprocess_exec(*again.start_argv(ref), env=environment)
    assert await process.wait() == 0
    for _ in range(1200):
        if [line.text for line in await yard.log(ref)] == ["run"] + ["run"] * 2 + ["run"] * 3:
            break
        await asyncio.sleep(0.05)
    assert len(await yard.log(ref)) == 6
    await yard.comes_to(ref, Phase.RUNNING)
