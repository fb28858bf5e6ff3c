"""The contract of every backend. A test module subclasses `BackendContract` and one class for each role.

All of it is written against `vmtui.core` alone. What a test makes is removed by it, and nothing of it may be left.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contract.subject import Lab, Subject, why_not
from tests.support.crash import Tick, killed_at
from tests.support.hostview import HostView
from tests.support.remains import remains_of
from vmtui.core.backend import Backend, Context, Desired, Probe, Progress, roles, silent
from vmtui.core.errors import Fault, NotFound
from vmtui.core.lifecycle import TRANSITIONS, Action, Phase, Role, allowed
from vmtui.core.resource import Ref, Status
from vmtui.host.paths import Paths

MARGIN_S = 90.0  # for a busy machine, on top of what a subject says
_probes: dict[type[Backend[Any]], Probe] = {}


class LabContext(Context, frozen=True, kw_only=True):
    """Without an engine: what a backend runs at the end of a workload has nothing to do here."""

    def reap_argv(self, ref: Ref) -> list[str]:
        return [sys.executable, "-S", "-c", f"# reap {ref}"]


def make_lab(subject: Subject, cache: Path) -> tuple[Lab, Path]:
    """A workspace of its own, but for the cache; and the folder to remove when it is done with."""
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))  # short: unix socket paths
    paths = Paths(root / "s" / "vmtui", cache, root / "r" / "vmtui")
    paths.make()
    folder = root / "folder"
    folder.mkdir()
    return Lab(subject, LabContext(paths=paths, workspace=secrets.token_hex(4)), folder), root


async def clear(lab: Lab) -> None:
    """Remove all that the workspace has, and see that it is gone."""
    backend = lab.front_end()
    for status in await backend.scan():
        lab.refs.add(status.ref)
        await backend.delete(status.ref, purge=True)
    assert list(await backend.scan()) == []
    await lab.aclose()


async def until(what: str, true: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
    """Wait for something that takes its time. Raises AssertionError."""
    deadline = time.monotonic() + timeout_s
    while not await true():
        assert time.monotonic() < deadline, f"after {timeout_s:g} s still not: {what}"
        await asyncio.sleep(0.05)


def next_phase(phase: Phase, action: Action, backend: Backend[Any]) -> Phase:
    """Where the one table says that an action leads; it must allow it."""
    assert action in allowed(phase, roles(backend)), f"{action} is not allowed when {phase}"
    return TRANSITIONS[phase][action] or phase


async def create_and_tick(tick: Tick, backend: type[Backend[Any]], context: Context, desired: Desired[Any]) -> None:
    """Runs in another process, which is killed at one of the ticks."""
    front_end = backend(context)
    tick()
    await front_end.create(desired, tick)
    tick()
    await front_end.aclose()


class BackendContract:
    """What holds for every backend."""

    subject: ClassVar[Subject]
    role: ClassVar[Role | None] = None

    @pytest.fixture(scope="class")
    @classmethod
    def cache(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Kernels, layers and modules are made once for the whole session."""
        return tmp_path_factory.getbasetemp() / "cache"

    @pytest.fixture(scope="class")
    @classmethod
    def probed(cls, cache: Path) -> Probe:
        kind = cls.subject.backend
        if kind not in _probes:
            lab, root = make_lab(cls.subject, cache)
            _probes[kind] = asyncio.run(_probe(lab))
            shutil.rmtree(root)
        return _probes[kind]

    @pytest.fixture
    async def lab(self, probed: Probe, cache: Path) -> AsyncIterator[Lab]:
        if not probed.usable:
            pytest.skip(why_not(probed))
        lab, root = make_lab(self.subject, cache)
        try:
            yield lab
        finally:
            await clear(lab)
            left = await remains_of(lab.context, lab.refs)
            shutil.rmtree(root)
            assert left == "", f"left behind:\n{left}"

    @pytest.fixture
    def backend(self, lab: Lab) -> Backend[Any]:
        return lab.front_end()

    def test_each_role_has_its_contract_here(self) -> None:
        tested = {base.__dict__["role"] for base in type(self).__mro__ if base.__dict__.get("role")}
        assert tested == roles(self.subject.backend(Context(paths=Paths.from_environment(), workspace="none")))

    def test_probe_says_what_and_why(self, probed: Probe) -> None:
        assert (probed.backend, probed.kind) == (self.subject.backend.name, self.subject.backend.kind)
        assert probed.summary
        assert probed.usable or probed.problems
        assert all(problem.message and problem.hint for problem in probed.problems)

    async def test_there_is_nothing_at_first(self, lab: Lab, backend: Backend[Any]) -> None:
        assert list(await backend.scan()) == []
        with pytest.raises(NotFound):
            await backend.inspect(lab.ref())

    async def test_what_is_created_is_seen(self, lab: Lab, backend: Backend[Any]) -> None:
        desired = await lab.desired()
        assert list(await backend.check(desired, ())) == []
        await backend.create(desired, silent)
        (status,) = await backend.scan()
        assert _identity(status) == _identity(await backend.inspect(desired.ref))
        assert status.ref == desired.ref
        assert status.backend == backend.name
        assert status.spec_hash == desired.spec_hash
        assert status.phase is (Phase.STOPPED if backend.kind.runs else Phase.AVAILABLE)
        assert status.problems == ()

    async def test_creating_it_again_changes_nothing(self, lab: Lab, backend: Backend[Any]) -> None:
        desired = await lab.desired()
        await backend.create(desired, silent)
        before, host = await backend.inspect(desired.ref), HostView.of(lab.context, lab.refs)
        await backend.create(desired, silent)
        await lab.front_end().create(desired, silent)
        assert _identity(await backend.inspect(desired.ref)) == _identity(before)
        assert host.diff(HostView.of(lab.context, lab.refs)) == ""

    async def test_another_front_end_sees_the_same(self, lab: Lab, backend: Backend[Any]) -> None:
        desired = await lab.desired()
        await backend.create(desired, silent)
        seen = await backend.inspect(desired.ref)
        await backend.aclose()
        assert _identity(await lab.front_end().inspect(desired.ref)) == _identity(seen)

    async def test_deleting_what_is_not_there_succeeds(self, lab: Lab, backend: Backend[Any]) -> None:
        await backend.delete(lab.ref(), purge=False)
        await backend.delete(lab.ref(), purge=True)
        desired = await lab.desired()
        await backend.create(desired, silent)
        await backend.delete(desired.ref, purge=True)
        await backend.delete(desired.ref, purge=True)
        with pytest.raises(NotFound):
            await backend.inspect(desired.ref)

    async def test_deleted_it_can_be_made_again(self, lab: Lab, backend: Backend[Any]) -> None:
        desired = await lab.desired()
        for _ in range(2):
            await backend.create(desired, silent)
            await backend.delete(desired.ref, purge=True)
            left = await remains_of(lab.context, lab.refs)
            assert left == "", left

    async def test_equal_names_in_two_profiles_do_not_meet(self, lab: Lab, backend: Backend[Any]) -> None:
        here, there = await lab.desired(profile="here"), await lab.desired(profile="there")
        await asyncio.gather(backend.create(here, silent), backend.create(there, silent))
        assert {status.ref for status in await backend.scan()} == {here.ref, there.ref}
        await backend.delete(here.ref, purge=True)
        assert [status.ref for status in await backend.scan()] == [there.ref]
        assert (await backend.inspect(there.ref)).problems == ()

    async def test_another_workspace_is_neither_seen_nor_touched(
        self, lab: Lab, backend: Backend[Any], cache: Path
    ) -> None:
        other, root = make_lab(self.subject, cache)
        try:
            mine, foreign = await lab.desired(), await other.desired()
            assert mine.ref == foreign.ref
            await other.front_end().create(foreign, silent)
            assert list(await backend.scan()) == []
            await backend.delete(mine.ref, purge=True)
            await backend.create(mine, silent)
            await backend.delete(mine.ref, purge=True)
            (status,) = await other.front_end().scan()
            assert (status.ref, status.problems) == (foreign.ref, ())
        finally:
            await clear(other)
            shutil.rmtree(root)

    async def test_a_failed_create_leaves_nothing(self, lab: Lab, backend: Backend[Any]) -> None:
        desired = await self.subject.impossible(lab)
        if desired is None:
            pytest.skip(f"nothing is known that {self.subject.backend.__name__} cannot create")
        assert all(problem.message for problem in await backend.check(desired, ()))
        with pytest.raises(Fault) as caught:
            await backend.create(desired, silent)
        assert caught.value.message
        assert not caught.value.message.endswith(".")
        assert list(await backend.scan()) == []
        left = await remains_of(lab.context, lab.refs)
        assert left == "", left

    async def test_a_cancelled_create_leaves_nothing(self, lab: Lab, backend: Backend[Any]) -> None:
        desired = await lab.desired("cancelled")
        for point in range(1, self.subject.kill_points + 1):
            if not await _cancelled_at(point, backend, desired):
                break
            assert list(await backend.scan()) == [], f"cancelled at its progress {point}"
            left = await remains_of(lab.context, lab.refs)
            assert left == "", f"cancelled at its progress {point}:\n{left}"

    async def test_a_killed_create_is_shown_or_undone(self, lab: Lab, backend: Backend[Any]) -> None:
        desired = await lab.desired("killed")
        for point in range(1, self.subject.kill_points + 1):
            act = (create_and_tick, self.subject.backend, lab.context, desired)
            if not await asyncio.to_thread(killed_at, point, *act):
                break
            for status in await backend.scan():
                assert status.ref == desired.ref
                whole = status.spec_hash == desired.spec_hash and status.phase is not Phase.BROKEN
                said = status.phase is Phase.BROKEN and status.problems
                assert whole or said, f"killed at its point {point}: {status}"
            if point % 2:
                if backend.kind.runs:  # as the engine does
                    await backend.delete(desired.ref, purge=False)
                await backend.create(desired, silent)
                assert (await backend.inspect(desired.ref)).problems == ()
            await backend.delete(desired.ref, purge=True)
            left = await remains_of(lab.context, lab.refs)
            assert left == "", f"killed at its point {point}:\n{left}"

    async def test_changes_are_told(self, lab: Lab, backend: Backend[Any]) -> None:
        desired = await lab.desired()
        watcher = lab.front_end()
        async with Told(watcher) as told:
            await backend.create(desired, silent)
            await told.expect(desired.ref)
            await told.settle()
            await backend.delete(desired.ref, purge=True)
            await told.expect(desired.ref)

    async def test_closing_it_twice_is_nothing(self, backend: Backend[Any]) -> None:
        await backend.scan()
        await backend.aclose()
        await backend.aclose()


async def _probe(lab: Lab) -> Probe:
    probe = await lab.front_end().probe()
    await lab.aclose()
    return probe


def _identity(status: Status) -> tuple[object, ...]:
    """What of a status does not change by being looked at."""
    return status.ref, status.backend, status.phase, status.spec_hash, status.pid, status.exit, status.size_bytes


async def _cancelled_at(point: int, backend: Backend[Any], desired: Any) -> bool:
    """False if it was done before."""
    left = point

    def report(progress: Progress) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            task.cancel()

    task = asyncio.create_task(backend.create(desired, report))
    await asyncio.wait([task])
    if task.cancelled():
        return True
    assert task.exception() is None, f"a cancelled create raised {task.exception()!r}"
    return False


class Told:
    """Collects what `watch` yields."""

    def __init__(self, backend: Backend[Any]) -> None:
        self._backend = backend
        self._seen: asyncio.Queue[Ref] = asyncio.Queue()

    async def __aenter__(self) -> Told:
        self._task = asyncio.create_task(self._collect())
        await asyncio.sleep(0.3)  # an async generator starts to watch when it is first asked
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _collect(self) -> None:
        async with aclosing(self._backend.watch()) as changes:  # type: ignore[type-var]
            async for ref in changes:
                self._seen.put_nowait(ref)

    async def expect(self, ref: Ref) -> None:
        async with asyncio.timeout(MARGIN_S):
            while await self._seen.get() != ref:
                pass

    async def settle(self) -> None:
        """Forget what came, until nothing comes any more."""
        while True:
            try:
                async with asyncio.timeout(0.3):
                    await self._seen.get()
            except TimeoutError:
                return
