"""The engine on simulated backends: failures, locks, restart policies, readiness, a lost database."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.support.fakes import open_fakes, profile
from vmtui.backends.fake.options import FakeOptions
from vmtui.core.errors import Fault, LockHeld, NotFound, NotPermitted, OperationFailed, ReadinessTimeout
from vmtui.core.events import Event
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, Ready, Restart, Spec
from vmtui.core.units import Duration, Size
from vmtui.engine.lock import exclusive
from vmtui.engine.reap import delay_s
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths

WEB = Ref("t", Kind.CONTAINER, "web")
DATA = Ref("t", Kind.DISK, "data")
SPECS: dict[str, Spec] = {
    "network/lab": NetworkSpec(backend="fake", subnet="10.77.0.0/24"),
    "disk/data": DiskSpec(backend="fake", size=Size(1 << 20)),
    "container/web": ContainerSpec(backend="fake", image="x", networks=("lab",)),
}


def quiet(event: Event) -> None:
    """Nobody listens."""


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = open_fakes(paths)
    yield opened
    await opened.aclose()


async def up(
    workspace: Workspace, specs: dict[str, Spec] = SPECS, options: dict[str, FakeOptions] | None = None, **how: Any
) -> Any:
    plan = await workspace.plan(profile("t", specs, options))
    return await workspace.apply(plan, emit=quiet, **how)


async def phases(workspace: Workspace) -> dict[str, Phase]:
    return {status.ref.short: status.phase for status in await workspace.scan()}


async def test_a_failing_step_takes_everything_back(workspace: Workspace) -> None:
    outcome = await up(workspace, options={"container/web": FakeOptions(fail_on=(Action.START,))})
    assert (outcome.result, outcome.failed) == ("rolled-back", WEB)
    assert isinstance(outcome.failure, OperationFailed)
    assert await phases(workspace) == {}
    assert workspace.profiles() == ()
    assert workspace.store.interrupted() == {}


async def test_a_failing_step_can_be_kept(workspace: Workspace) -> None:
    outcome = await up(workspace, options={"container/web": FakeOptions(fail_on=(Action.START,))}, on_failure="keep")
    assert outcome.result == "kept"
    assert await phases(workspace) == {
        "network/lab": Phase.AVAILABLE,
        "disk/data": Phase.AVAILABLE,
        "container/web": Phase.STOPPED,
    }


async def test_a_failed_recreation_brings_the_old_one_back(workspace: Workspace) -> None:
    await up(workspace)
    before = await workspace.scan()
    changed = SPECS | {"container/web": ContainerSpec(backend="fake", image="y", networks=("lab",))}
    outcome = await up(workspace, changed, {"container/web": FakeOptions(fail_on=(Action.START,))})
    assert outcome.result == "rolled-back"
    after = {status.ref: status for status in await workspace.scan()}
    assert {ref: status.spec_hash for ref, status in after.items()} == {s.ref: s.spec_hash for s in before}
    assert after[WEB].phase is Phase.RUNNING
    plan = await workspace.plan(profile("t", SPECS))
    assert plan.empty


async def test_cancellation_takes_back_before_it_goes_on(workspace: Workspace) -> None:
    options = {"container/web": FakeOptions(hang_on=(Action.START,))}
    plan = await workspace.plan(profile("t", SPECS, options))
    begun = asyncio.Event()

    def emit(event: Event) -> None:
        if getattr(event, "action", "") == "start":
            begun.set()

    task = asyncio.create_task(workspace.apply(plan, emit=emit))
    await begun.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await phases(workspace) == {}


async def test_the_lock_is_held_by_one_and_names_its_holder(workspace: Workspace, paths: Paths) -> None:
    plan = await workspace.plan(profile("t", SPECS))
    async with exclusive(paths.state / "lock", wait_s=0, purpose="a test"):
        with pytest.raises(LockHeld, match=r"pid \d+, a test"):
            async with exclusive(paths.state / "lock", wait_s=0, purpose="another"):
                pass
        assert len(await workspace.scan()) == 0  # readers never wait
    assert (await workspace.apply(plan, emit=quiet)).result == "converged"


async def test_a_lost_database_orphans_nothing(workspace: Workspace, paths: Paths) -> None:
    await up(workspace)
    await workspace.aclose()
    for file in paths.state.glob("state.db*"):
        file.unlink()
    again = open_fakes(paths)
    plan = await again.plan(profile("t", SPECS))
    assert {change.action for change in plan.changes} == {"update"}
    await again.apply(plan, emit=quiet)
    down = await again.plan_down("t", purge=True)
    await again.apply(down, emit=quiet)
    assert await again.scan() == ()
    await again.aclose()


async def test_down_works_without_a_database(workspace: Workspace, paths: Paths) -> None:
    await up(workspace)
    await workspace.aclose()
    for file in paths.state.glob("state.db*"):
        file.unlink()
    again = open_fakes(paths)
    await again.apply(await again.plan_down("t", purge=True), emit=quiet)
    assert await again.scan() == ()
    with pytest.raises(NotFound):
        await again.plan_down("t", purge=True)
    await again.aclose()


def test_a_damaged_database_is_a_clear_error(paths: Paths) -> None:
    (paths.state / "state.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Fault, match="cannot be used") as caught:
        open_fakes(paths)
    assert caught.value.hint.startswith("mv ")


async def test_two_profiles_may_use_the_same_names(workspace: Workspace) -> None:
    await up(workspace)
    other: dict[str, Spec] = {"container/web": ContainerSpec(backend="fake", image="x")}
    await workspace.apply(await workspace.plan(profile("u", other)), emit=quiet)
    statuses = await workspace.scan()
    with pytest.raises(NotFound, match="can mean t/container/web, u/container/web"):
        workspace.resolve("web", statuses)
    assert workspace.resolve("u/container/web", statuses) == Ref("u", Kind.CONTAINER, "web")
    await workspace.apply(await workspace.plan_down("u", purge=False), emit=quiet)
    assert (await workspace.plan(profile("t", SPECS))).empty


async def test_only_takes_what_is_needed_along(workspace: Workspace) -> None:
    plan = await workspace.plan(profile("t", SPECS), only=["web"])
    assert {change.ref.short for change in plan.changes} == {"container/web", "network/lab"}


async def test_verbs_say_why_they_are_refused(workspace: Workspace) -> None:
    await up(workspace)
    with pytest.raises(NotPermitted, match="it is running; start needs it to be exited or stopped"):
        await workspace.act(WEB, Action.START, emit=quiet)
    with pytest.raises(NotPermitted, match="is data"):
        await workspace.act(DATA, Action.DELETE, emit=quiet)
    with pytest.raises(NotPermitted, match="is used by t/container/web"):
        await workspace.act(Ref("t", Kind.NETWORK, "lab"), Action.DELETE, emit=quiet)


@pytest.mark.parametrize(
    ("policy", "code", "restarted"),
    [
        (Restart.NO, 1, False),
        (Restart.ON_FAILURE, 1, True),
        (Restart.ON_FAILURE, 0, False),
        (Restart.ALWAYS, 0, True),
        (Restart.UNLESS_STOPPED, 0, True),
    ],
)
async def test_restart_policies(workspace: Workspace, policy: Restart, code: int, restarted: bool) -> None:
    specs: dict[str, Spec] = {"container/web": ContainerSpec(backend="fake", image="x", restart=policy)}
    await up(workspace, specs, {"container/web": FakeOptions(exit_after=Duration(0.05), exit_code=code)})
    await asyncio.sleep(0.1)
    assert (await workspace.inspect(WEB)).phase is Phase.EXITED
    await workspace.reap(WEB)
    verbs = [event.verb for event in workspace.events()]
    assert ("restart" in verbs) is restarted
    assert "exit" in verbs


async def test_what_was_stopped_on_purpose_stays_stopped(workspace: Workspace) -> None:
    await up(workspace, {"container/web": ContainerSpec(backend="fake", image="x", restart=Restart.ALWAYS)})
    await workspace.act(WEB, Action.STOP, emit=quiet)
    await workspace.reap(WEB)
    assert (await workspace.inspect(WEB)).phase is Phase.STOPPED


def test_the_restart_delay_doubles_up_to_a_minute() -> None:
    delays: Sequence[float] = [delay_s(attempt) for attempt in range(12)]
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert delays[-1] == 60.0


async def test_readiness_by_log_is_remembered_for_the_instance(workspace: Workspace) -> None:
    ready = Ready(log="^serving", timeout=Duration(60), interval=Duration(0.02))
    options = {"container/web": FakeOptions(log=("hello",), ready_line="serving now", ready_after=Duration(0.2))}
    await up(workspace, {"container/web": ContainerSpec(backend="fake", image="x", ready=ready)}, options)
    (status,) = await workspace.wait_ready([WEB], timeout=None, emit=quiet)
    assert status.phase is Phase.RUNNING
    row = workspace.store.get(WEB)
    assert row is not None
    assert row.ready.startswith(f"{status.pid}@")


async def test_a_readiness_timeout_tells_what_it_waited_for_and_the_log(workspace: Workspace) -> None:
    ready = Ready(log="never", interval=Duration(0.02))
    options = {"container/web": FakeOptions(log=("one", "two"))}
    await up(workspace, {"container/web": ContainerSpec(backend="fake", image="x", ready=ready)}, options)
    with pytest.raises(ReadinessTimeout, match="waited for its log to match 'never'") as caught:
        await workspace.wait_ready([WEB], timeout=0.3, emit=quiet)
    assert caught.value.details == "one\ntwo"


async def test_an_early_end_is_a_failure_not_a_timeout(workspace: Workspace) -> None:
    options = {"container/web": FakeOptions(exit_after=Duration(0.05), exit_code=7, exit_reason="it fell over")}
    specs: dict[str, Spec] = {"container/web": ContainerSpec(backend="fake", image="x", ready=Ready(tcp=80))}
    plan = await workspace.plan(profile("t", specs, options))
    outcome = await workspace.apply(plan, emit=quiet)
    with pytest.raises(OperationFailed, match="ended with code 7 before it was ready: it fell over"):
        await workspace.wait_ready([WEB], timeout=60, emit=quiet)
    await workspace.roll_back(plan, outcome, emit=quiet)
    assert await phases(workspace) == {}


async def test_a_finished_job_is_ready(workspace: Workspace) -> None:
    options = {"container/web": FakeOptions(exit_after=Duration(0.05), exit_code=3)}
    await up(workspace, {"container/web": ContainerSpec(backend="fake", image="x", ready=Ready(exit_code=3))}, options)
    (status,) = await workspace.wait_ready([WEB], timeout=60, emit=quiet)
    assert status.exit is not None
    assert status.exit.code == 3


async def test_a_killed_process_leaves_the_lock_free(paths: Paths) -> None:
    code = (
        "import asyncio,sys,pathlib\n"
        "from vmtui.engine.lock import exclusive\n"
        "async def main():\n"
        "    async with exclusive(pathlib.Path(sys.argv[1]), wait_s=0, purpose='x'):\n"
        "        print('held', flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    lock = paths.state / "lock"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(lock), stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"held\n"
    with pytest.raises(LockHeld):
        async with exclusive(lock, wait_s=0, purpose="y"):
            pass
    child.send_signal(signal.SIGKILL)
    await child.wait()
    async with exclusive(lock, wait_s=1, purpose="y"):
        pass
