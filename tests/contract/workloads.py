"""The contract of what runs: one class for each role."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contract.subject import GREETING, LATER, Lab, why_not
from tests.contract.suite import MARGIN_S, BackendContract, Told, clear, make_lab, next_phase, until
from tests.support.crash import Tick, killed_at
from tests.support.remains import remains_of
from vmtui.core.backend import (
    Attachments,
    Backend,
    Context,
    ExecRequest,
    ExecSession,
    Executes,
    HasLogs,
    Killable,
    LogFiles,
    Measurable,
    Pausable,
    Probe,
    Runnable,
    silent,
)
from vmtui.core.errors import NotFound, NotPermitted
from vmtui.core.lifecycle import Action, Phase, Role
from vmtui.core.resource import Ref

KILLED = 137  # 128 + SIGKILL


async def start(lab: Lab, backend: Backend[Any], ref: Ref) -> None:
    assert isinstance(backend, Runnable)
    await backend.start(ref, await lab.subject.attachments(lab), silent)


async def phase(backend: Backend[Any], ref: Ref) -> Phase:
    return (await backend.inspect(ref)).phase


async def comes_to(backend: Backend[Any], ref: Ref, wanted: Phase, timeout_s: float = MARGIN_S) -> None:
    async def there() -> bool:
        return await phase(backend, ref) is wanted

    await until(f"{ref} is {wanted}", there, timeout_s)


async def has_said(backend: Backend[Any], ref: Ref, text: str, timeout_s: float) -> None:
    assert isinstance(backend, HasLogs)

    async def said() -> bool:
        return any(text in line.text for line in [line async for line in backend.logs(ref, tail=None, follow=False)])

    await until(f"{ref} says {text!r}", said, timeout_s)


async def start_and_tick(
    tick: Tick, backend: type[Backend[Any]], context: Context, ref: Ref, attachments: Attachments
) -> None:
    """Runs in another process, which is killed at one of the ticks."""
    front_end = backend(context)
    assert isinstance(front_end, Runnable)
    tick()
    await front_end.start(ref, attachments, tick)
    tick()


class RunnableContract(BackendContract):
    role: ClassVar[Role | None] = Role.RUNNABLE

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, probed: Probe, cache: Path) -> Iterator[tuple[Lab, Ref]]:
        """One running workload for the tests that only look at it; the front end that started it is gone."""
        if not probed.usable:
            pytest.skip(why_not(probed))
        lab, root = make_lab(cls.subject, cache)

        async def begin() -> Ref:
            desired = await lab.desired("shared")
            backend = lab.front_end()
            await backend.create(desired, silent)
            await start(lab, backend, desired.ref)
            await has_said(backend, desired.ref, GREETING, lab.subject.boot_s + MARGIN_S)
            await lab.aclose()
            return desired.ref

        try:
            yield lab, asyncio.run(begin())
        finally:
            asyncio.run(clear(lab))
            left = asyncio.run(remains_of(lab.context, lab.refs))
            shutil.rmtree(root)
            assert left == "", f"left behind:\n{left}"

    @pytest.fixture
    async def running(self, shared: tuple[Lab, Ref]) -> AsyncIterator[tuple[Any, Ref]]:
        lab, ref = shared
        yield lab.front_end(), ref
        await lab.aclose()

    async def test_it_runs_without_the_front_end_that_started_it(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        (status,) = await backend.scan()
        assert status.ref == ref
        assert status.phase is Phase.RUNNING
        assert status.problems == ()
        assert status.started_at is not None
        assert abs(time.time() - status.started_at) < 600
        assert status.pid == (await backend.inspect(ref)).pid

    async def test_starting_it_again_changes_nothing(self, shared: tuple[Lab, Ref], running: tuple[Any, Ref]) -> None:
        backend, ref = running
        before = await backend.inspect(ref)
        await start(shared[0], backend, ref)
        after = await backend.inspect(ref)
        assert (after.phase, after.pid) == (before.phase, before.pid)
        assert after.started_at == pytest.approx(before.started_at, abs=1.0)

    async def test_from_start_to_end(self, lab: Lab, backend: Backend[Any]) -> None:
        """Each action leads where the one table says."""
        assert isinstance(backend, Runnable)
        desired = await lab.desired("life")
        ref = desired.ref
        await backend.create(desired, silent)
        await backend.stop(ref, grace_s=self.subject.grace_s)
        assert await phase(backend, ref) is Phase.STOPPED
        expected = next_phase(Phase.STOPPED, Action.START, backend)
        await start(lab, backend, ref)
        assert await phase(backend, ref) is expected
        await has_said(backend, ref, GREETING, self.subject.boot_s + MARGIN_S)
        expected = next_phase(expected, Action.STOP, backend)
        await backend.stop(ref, grace_s=self.subject.grace_s)
        assert await phase(backend, ref) is expected
        await backend.stop(ref, grace_s=self.subject.grace_s)
        assert await phase(lab.front_end(), ref) is expected
        expected = next_phase(expected, Action.START, backend)
        await start(lab, lab.front_end(), ref)
        assert await phase(backend, ref) is expected
        next_phase(expected, Action.DELETE, backend)
        await backend.delete(ref, purge=True)
        with pytest.raises(NotFound):
            await backend.inspect(ref)
        left = await remains_of(lab.context, lab.refs)
        assert left == "", left

    async def test_it_ends_by_itself(self, lab: Lab, backend: Backend[Any]) -> None:
        assert isinstance(backend, Runnable)
        desired = await self.subject.ending(lab)
        ref = desired.ref
        await backend.create(desired, silent)
        async with Told(lab.front_end()) as told:
            await start(lab, backend, ref)
            await comes_to(backend, ref, Phase.EXITED, self.subject.boot_s + MARGIN_S)
            await told.expect(ref)
        status = await lab.front_end().inspect(ref)
        assert status.exit is not None
        assert status.exit.code == 3
        assert abs(time.time() - status.exit.at) < 600
        next_phase(Phase.EXITED, Action.START, backend)
        await start(lab, backend, ref)
        await comes_to(backend, ref, Phase.EXITED, self.subject.boot_s + MARGIN_S)
        expected = next_phase(Phase.EXITED, Action.STOP, backend)
        await backend.stop(ref, grace_s=self.subject.grace_s)
        assert await phase(backend, ref) is expected

    async def test_a_killed_start_is_taken_up(self, lab: Lab, backend: Backend[Any]) -> None:
        """Whenever the front end dies, the next one starts it, or sees it run, and one can delete it."""
        desired = await lab.desired("cut-off")
        attachments = await self.subject.attachments(lab)
        for point in range(1, min(self.subject.kill_points, 8) + 1):
            await backend.create(desired, silent)
            act = (start_and_tick, self.subject.backend, lab.context, desired.ref, attachments)
            killed = await asyncio.to_thread(killed_at, point, *act)
            status = await backend.inspect(desired.ref)
            if status.phase is Phase.BROKEN:
                assert status.problems
            else:
                await start(lab, backend, desired.ref)
                await comes_to(backend, desired.ref, Phase.RUNNING)
            await backend.delete(desired.ref, purge=True)
            left = await remains_of(lab.context, lab.refs)
            assert left == "", f"killed at point {point} of its start:\n{left}"
            if not killed:
                break

    async def test_many_start_at_once(self, lab: Lab, backend: Backend[Any]) -> None:
        wanted = [await lab.desired(f"many-{number}") for number in range(3)]
        await asyncio.gather(*(backend.create(desired, silent) for desired in wanted))
        await asyncio.gather(*(start(lab, backend, desired.ref) for desired in wanted))
        assert {status.phase for status in await lab.front_end().scan()} == {Phase.RUNNING}
        await asyncio.gather(*(backend.delete(desired.ref, purge=True) for desired in wanted))
        assert list(await backend.scan()) == []

    async def test_what_is_not_there_does_not_start(self, lab: Lab, backend: Backend[Any]) -> None:
        with pytest.raises(NotFound):
            await start(lab, backend, lab.ref("nobody"))


class KillableContract(BackendContract):
    role: ClassVar[Role | None] = Role.KILLABLE

    async def test_killed_it_has_ended_at_once(self, lab: Lab, backend: Backend[Any]) -> None:
        assert isinstance(backend, Killable)
        desired = await lab.desired("killed")
        ref = desired.ref
        await backend.create(desired, silent)
        await backend.kill(ref)
        assert await phase(backend, ref) is Phase.STOPPED
        await start(lab, backend, ref)
        expected = next_phase(Phase.RUNNING, Action.KILL, backend)
        await backend.kill(ref)
        status = await lab.front_end().inspect(ref)
        assert status.phase is expected
        assert status.exit is not None
        assert status.exit.code == KILLED
        await backend.kill(ref)
        assert await phase(backend, ref) is expected


class PausableContract(BackendContract):
    role: ClassVar[Role | None] = Role.PAUSABLE

    async def test_paused_and_resumed(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        pid = (await backend.inspect(ref)).pid
        paused = next_phase(Phase.RUNNING, Action.PAUSE, backend)
        await backend.pause(ref)
        try:
            assert await phase(backend, ref) is paused
            assert (await backend.scan())[0].phase is paused
        finally:
            await backend.resume(ref)
        assert await phase(backend, ref) is next_phase(paused, Action.RESUME, backend)
        assert (await backend.inspect(ref)).pid == pid

    async def test_paused_it_can_be_stopped(self, lab: Lab, backend: Backend[Any]) -> None:
        assert isinstance(backend, Pausable)
        assert isinstance(backend, Runnable)
        desired = await lab.desired("paused")
        await backend.create(desired, silent)
        with pytest.raises(NotPermitted):
            await backend.pause(desired.ref)
        await start(lab, backend, desired.ref)
        await backend.pause(desired.ref)
        expected = next_phase(Phase.PAUSED, Action.STOP, backend)
        await backend.stop(desired.ref, grace_s=self.subject.grace_s)
        assert await phase(backend, desired.ref) is expected


class HasLogsContract(BackendContract):
    role: ClassVar[Role | None] = Role.HAS_LOGS

    async def test_the_log_has_what_it_said(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        await has_said(backend, ref, LATER, self.subject.boot_s + MARGIN_S)
        lines = [line async for line in backend.logs(ref, tail=None, follow=False)]
        texts = [line.text for line in lines]
        first = next(number for number, text in enumerate(texts) if GREETING in text)
        assert any(LATER in text for text in texts[first:])
        assert all("\n" not in text for text in texts)
        assert all(line.at is None or abs(time.time() - line.at) < 600 for line in lines)

    async def test_the_tail_is_the_last_lines(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        await has_said(backend, ref, LATER, self.subject.boot_s + MARGIN_S)
        assert [line async for line in backend.logs(ref, tail=0, follow=False)] == []
        assert len([line async for line in backend.logs(ref, tail=1, follow=False)]) == 1
        assert len([line async for line in backend.logs(ref, tail=2, follow=False)]) == 2

    async def test_the_log_is_followed_until_it_is_deleted(self, lab: Lab, backend: Backend[Any]) -> None:
        assert isinstance(backend, HasLogs)
        desired = await lab.desired("followed")
        ref = desired.ref
        await backend.create(desired, silent)
        assert [line async for line in backend.logs(ref, tail=None, follow=False)] == []
        await start(lab, backend, ref)
        reader = lab.front_end()
        assert isinstance(reader, HasLogs)
        async with asyncio.timeout(self.subject.boot_s + 2 * MARGIN_S):
            async with aclosing(reader.logs(ref, tail=None, follow=True)) as lines:  # type: ignore[type-var]
                texts = []
                async for line in lines:
                    texts.append(line.text)
                    if LATER in line.text:
                        break
                assert any(GREETING in text for text in texts)
                assert isinstance(backend, Runnable)
                await backend.stop(ref, grace_s=self.subject.grace_s)
                assert [line async for line in backend.logs(ref, tail=1, follow=False)]
                await backend.delete(ref, purge=True)
                async for _ in lines:
                    pass

    async def test_nobody_has_no_log(self, lab: Lab, backend: Backend[Any]) -> None:
        assert isinstance(backend, HasLogs)
        with pytest.raises(NotFound):
            [line async for line in backend.logs(lab.ref("nobody"), tail=None, follow=False)]


class LogFilesContract(BackendContract):
    """A log that lies in files. This role has no action, so `roles` does not list it."""

    async def test_the_files_have_the_log(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        assert isinstance(backend, LogFiles)
        assert isinstance(backend, Backend)
        assert isinstance(backend, HasLogs)
        await has_said(backend, ref, LATER, self.subject.boot_s + MARGIN_S)
        source = await backend.log_source(ref)
        raw = b"".join(path.read_bytes() for path in source.paths if path.exists())
        told = [line.text async for line in backend.logs(ref, tail=None, follow=False)]
        parsed = [source.parse(line) for line in raw.split(b"\n")[:-1]]
        whole, begun = [], ""
        for line in parsed:
            begun += line.text
            if not line.partial:
                whole.append(begun)
                begun = ""
        assert whole
        assert whole == told[: len(whole)]
        assert any(LATER in text for text in whole)
        assert {line.at is not None for line in parsed} == {source.timed}

    async def test_they_are_named_before_there_are_any(self, lab: Lab, backend: Backend[Any]) -> None:
        assert isinstance(backend, LogFiles)
        desired = await lab.desired("silent")
        await backend.create(desired, silent)
        source = await backend.log_source(desired.ref)
        assert source.paths
        assert not any(path.exists() and path.stat().st_size for path in source.paths)

    async def test_nobody_has_no_files(self, lab: Lab, backend: Backend[Any]) -> None:
        assert isinstance(backend, LogFiles)
        with pytest.raises(NotFound):
            await backend.log_source(lab.ref("nobody"))


async def output(session: ExecSession) -> dict[str, bytes]:
    """All that a command says, by stream; what it says on none is b""."""
    found = {"stdout": b"", "stderr": b""}
    while (item := await session.read()) is not None:
        found[item[0]] += item[1]
    return found


class ExecutesContract(BackendContract):
    """Needs `sh`, `cat`, `echo`, `test` and `sleep` inside."""

    role: ClassVar[Role | None] = Role.EXECUTES

    async def _run(self, backend: Any, ref: Ref, script: str, stdin: bytes = b"", **more: Any) -> tuple[int, Any]:
        async with asyncio.timeout(2 * MARGIN_S):
            session = await backend.exec(ref, ExecRequest(argv=("sh", "-c", script), **more))
            try:
                if stdin:
                    await session.write(stdin)
                if not more.get("tty"):
                    await session.close_stdin()
                said = await output(session)
                return await session.wait(), said
            finally:
                await session.aclose()

    async def test_exit_code_and_streams(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        code, said = await self._run(backend, ref, "echo to-out; echo to-err >&2; exit 7")
        assert (code, said) == (7, {"stdout": b"to-out\n", "stderr": b"to-err\n"})
        assert await self._run(backend, ref, "true") == (0, {"stdout": b"", "stderr": b""})

    async def test_stdin_and_environment(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        assert await self._run(backend, ref, "cat", b"line one\nline two\n") == (
            0,
            {"stdout": b"line one\nline two\n", "stderr": b""},
        )
        _, said = await self._run(backend, ref, 'echo "$CONTRACT"', environment=(("CONTRACT", "kept"),))
        assert said["stdout"] == b"kept\n"

    async def test_a_terminal(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        assert (await self._run(backend, ref, "test -t 0"))[0] == 1
        code, said = await self._run(backend, ref, "test -t 0 && echo terminal", tty=True)
        assert (code, said) == (0, {"stdout": b"terminal\r\n", "stderr": b""})

    async def test_an_unknown_command(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        assert (await self._run(backend, ref, "no-such-command-here"))[0] == 127

    async def test_closing_it_ends_it(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        async with asyncio.timeout(2 * MARGIN_S):
            session = await backend.exec(ref, ExecRequest(argv=("sleep", "600")))
            await session.aclose()
            await session.aclose()
        assert await phase(backend, ref) is Phase.RUNNING

    async def test_only_inside_what_runs(self, lab: Lab, backend: Backend[Any]) -> None:
        assert isinstance(backend, Executes)
        desired = await lab.desired("still")
        await backend.create(desired, silent)
        with pytest.raises(NotPermitted):
            await backend.exec(desired.ref, ExecRequest(argv=("true",)))


class HasConsoleContract(BackendContract):
    """Needs a shell on the console: `echo` is typed."""

    role: ClassVar[Role | None] = Role.HAS_CONSOLE

    async def test_what_is_typed_is_answered(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        for attempt in ("first", "second"):  # the second: a console can be left and taken again
            terminal = await backend.console(ref)
            try:
                await terminal.resize(40, 132)
                await terminal.write(f"echo con''tract {attempt}\r".encode())
                seen = b""
                async with asyncio.timeout(self.subject.boot_s + MARGIN_S):
                    while f"contract {attempt}".encode() not in seen:
                        data = await terminal.read()
                        assert data, f"the console ended after {seen!r}"
                        seen += data
            finally:
                await terminal.aclose()
        assert await phase(backend, ref) is Phase.RUNNING


class MeasurableContract(BackendContract):
    role: ClassVar[Role | None] = Role.MEASURABLE

    async def test_the_counters_make_sense(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        first = await backend.stats(ref)
        await asyncio.sleep(0.3)
        second = await backend.stats(ref)
        assert abs(time.time() - second.at) < 60
        assert second.at > first.at
        assert first.cpu_s is not None
        assert second.cpu_s is not None
        assert 0 <= first.cpu_s <= second.cpu_s
        assert second.memory_bytes is not None
        assert 0 < second.memory_bytes < 64 << 30
        for name in ("net_rx_bytes", "net_tx_bytes", "block_read_bytes", "block_write_bytes"):
            before, after = getattr(first, name), getattr(second, name)
            assert before is None or after is None or 0 <= before <= after

    async def test_only_of_what_runs(self, lab: Lab, backend: Backend[Any]) -> None:
        assert isinstance(backend, Measurable)
        desired = await lab.desired("still")
        await backend.create(desired, silent)
        with pytest.raises(NotPermitted):
            await backend.stats(desired.ref)


class ReconnectableContract(BackendContract):
    role: ClassVar[Role | None] = Role.RECONNECTABLE

    async def test_without_networks_there_is_nothing_to_plug(self, running: tuple[Any, Ref]) -> None:
        backend, ref = running
        before = await backend.inspect(ref)
        await backend.reconnect(ref, ())
        after = await backend.inspect(ref)
        assert (after.phase, after.pid, after.ports) == (before.phase, before.pid, ())
