"""Virtual machines on QEMU: one process each, under a small parent, found again by their files and /proc."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from vmtui.backends.qemu import state
from vmtui.backends.qemu.options import QemuOptions
from vmtui.backends.records import Record, Records
from vmtui.core.backend import (
    Attachments,
    Backend,
    Context,
    Desired,
    ExecRequest,
    ExecSession,
    Executes,
    HasConsole,
    HasLogs,
    Killable,
    LogFiles,
    LogLine,
    LogSource,
    Measurable,
    Pausable,
    Probe,
    Reconnectable,
    Report,
    Runnable,
    Terminal,
)
from vmtui.core.errors import (
    Fault,
    NotFound,
    NotPermitted,
    OperationFailed,
)
from vmtui.core.lifecycle import UP, Phase
from vmtui.core.resource import Fact, Kind, Port, Problem, Ref, Sample, Status
from vmtui.core.specs import VmSpec
from vmtui.guests import run as files
from vmtui.host.files import in_words, remedy, write_atomic
from vmtui.host.process import ProcessId

ANSWER_S = 2.0
PRESS_AGAIN_S = 1.0


class QemuBackend(Backend[VmSpec]):
    """Needs qemu-system-x86; root for TAPs, for images, and to give each VM a user of its own."""

    name = "qemu"
    kind = Kind.VM
    options_type = QemuOptions
    priority: ClassVar[int] = 10

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._records: Records[VmSpec] = Records(context, Kind.VM, VmSpec, self.name, QemuOptions)

    # What is there

    async def probe(self) -> Probe:
        from vmtui.backends.qemu import accelerator

        try:
            host = await accelerator.examine(self.context.paths.cache)
            chosen = accelerator.choose(host, "auto")
        except (Fault, OSError) as error:
            fault = error if isinstance(error, Fault) else OperationFailed(str(error))
            problem = Problem(
                code="no-qemu", message=fault.message, hint=fault.hint or "apt-get install qemu-system-x86"
            )
            return Probe(backend=self.name, kind=self.kind, usable=False, summary=fault.message, problems=(problem,))
        facts = (("qemu", host.version), ("accelerator", chosen.name), ("why", chosen.why))
        slow = chosen.name == accelerator.TCG
        summary = f"QEMU {host.version} with {'TCG, in software' if slow else 'KVM'}"
        problems = (Problem(code="no-kvm", message=chosen.why, hint=accelerator.mend_kvm()),) if slow else ()
        return Probe(backend=self.name, kind=self.kind, usable=True, summary=summary, problems=problems, facts=facts)

    async def scan(self) -> Sequence[Status]:
        return [status for ref in self._records.refs() if (status := self._observe(ref)) is not None]

    async def inspect(self, ref: Ref) -> Status:
        from vmtui.backends.qemu import qmp
        from vmtui.guests import launch

        status = self._observe(ref)
        if status is None:
            raise NotFound(f"{ref} does not exist")
        if status.phase not in UP:
            return status
        facts = (*status.facts, Fact(name="qmp", value=str(self._socket(ref, "qmp"))))
        try:
            runstate = await qmp.status(self._socket(ref, "qmp"), timeout=ANSWER_S)
        except OperationFailed as fault:
            seen = state.observe(self.context.resource_dir(ref))
            if seen.process is None or not seen.process.alive:  # it ended meanwhile
                await launch.noted(self.context.resource_dir(ref) / files.RUN)
                ended = self._observe(ref)
                if ended is None:
                    raise NotFound(f"{ref} does not exist") from None
                return ended
            problem = Problem(code="no-answer", message=fault.message, hint=f"vmtui restart {ref}")
            return msgspec.structs.replace(status, facts=facts, problems=(*status.problems, problem))
        phase, problems = status.phase, status.problems
        if runstate in ("paused", "running"):
            phase = Phase.PAUSED if runstate == "paused" else Phase.RUNNING
        else:
            problem = Problem(code="halted", message=f"qemu holds the guest: {runstate}", hint=f"vmtui restart {ref}")
            problems = (*problems, problem)
        return msgspec.structs.replace(status, phase=phase, facts=facts, problems=problems)

    def _observe(self, ref: Ref) -> Status | None:
        if not self._ours(ref):
            return None
        folder = self.context.resource_dir(ref)
        record = self._records.read(ref)
        if record is None or not record.complete:
            return self._half_made(ref, record)
        seen = state.observe(folder)
        facts = seen.launch.facts() if seen.launch else ()
        phase, problems = seen.phase, seen.problems
        if phase in UP and (folder / files.RUN / files.STARTED).exists() and not self._socket(ref, "qmp").exists():
            gone = "it runs, but its sockets are gone: nobody can reach it"
            phase, problems = Phase.BROKEN, (Problem(code="no-sockets", message=gone, hint=f"vmtui rm {ref}"),)
        return Status(
            ref=ref,
            backend=self.name,
            phase=phase,
            spec_hash=record.desired.spec_hash,
            pid=seen.process.pid if seen.process and seen.phase in UP else None,
            started_at=seen.process.started_at if seen.process else None,
            exit=seen.exit,
            addresses=seen.addresses,
            facts=facts,
            problems=problems,
            log=str(folder / files.LOG),
        )

    def _half_made(self, ref: Ref, record: Record[VmSpec] | None) -> Status:
        what = "its making was cut short" if record else "its record cannot be read"
        problem = Problem(code="half-made", message=what, hint=f"vmtui rm {ref}")
        return Status(ref=ref, backend=self.name, phase=Phase.BROKEN, problems=(problem,))

    def _ours(self, ref: Ref) -> bool:
        """Whether the folder is there and not another backend's; one without a readable record may be anybody's."""
        return self.context.resource_dir(ref).is_dir() and not self._records.foreign(ref)

    def _socket(self, ref: Ref, name: str) -> Path:
        return files.socket_path(str(self.context.runtime_dir(ref)), name)

    async def watch(self) -> AsyncIterator[Ref]:
        from vmtui.guests.watch import Watcher

        async with aclosing(Watcher(self.context).refs()) as refs:  # type: ignore[type-var]
            async for ref in refs:
                yield ref

    # Making and removing

    async def check(self, desired: Desired[VmSpec], others: Sequence[Desired[Any]]) -> Sequence[Problem]:
        from vmtui.backends.qemu import making

        return await making.problems(self.context, desired, others)

    async def create(self, desired: Desired[VmSpec], report: Report) -> None:
        from vmtui.backends.qemu import check
        from vmtui.guests import image

        ref, cache = desired.ref, self.context.paths.cache
        record = self._records.read(ref)
        if record is not None and record.complete and record.desired.spec_hash == desired.spec_hash:
            return
        for fault in check.faults(desired):
            raise fault
        await self.delete(ref, purge=False)
        try:
            await image.fetch(cache, self._records.begin(desired), desired, report)
            await asyncio.sleep(0)  # where a cancellation that came meanwhile is seen: nothing above may have waited
            self._records.finish(desired)
        except BaseException as error:
            self._records.remove(ref)
            if isinstance(error, OSError):
                hint = remedy(error, self.context.paths.state, cache)
                raise OperationFailed(f"cannot make {ref}: {in_words(error)}", hint=hint) from error
            raise

    async def delete(self, ref: Ref, *, purge: bool) -> None:  # noqa: ARG002  # its disks are not its own
        from vmtui.guests import launch

        folder = self.context.resource_dir(ref)
        if not self._ours(ref):
            return
        try:
            if (folder / files.RUN).is_dir():
                await launch.end(folder, reap=False)
            launch.remove_sockets(self.context.runtime_dir(ref))
            for left in (2, 1, 0):
                try:
                    self._records.remove(ref)
                    break
                except OSError as error:
                    # A parent that nobody waits for any more may just be writing its last file.
                    if error.errno != errno.ENOTEMPTY or not left:
                        raise
                    await asyncio.sleep(0.1)
        except OSError as error:
            raise OperationFailed(f"cannot remove {error.filename}: {error.strerror}") from error

    def _made(self, ref: Ref) -> tuple[Desired[VmSpec], Path]:
        """Raises NotFound, NotPermitted (half made)."""
        if not self._ours(ref):
            raise NotFound(f"{ref} does not exist")
        record = self._records.read(ref)
        if record is None or not record.complete:
            raise NotPermitted(f"{ref} is half made", hint=f"vmtui rm {ref}")
        return record.desired, self.context.resource_dir(ref)

    def _up(self, ref: Ref) -> tuple[Desired[VmSpec], Path, state.Observed]:
        """Raises NotFound, NotPermitted (not running)."""
        desired, folder = self._made(ref)
        seen = state.observe(folder)
        if seen.phase not in UP or seen.process is None:
            raise NotPermitted(f"{ref} is {seen.phase}, not running", hint=f"vmtui start {ref}")
        return desired, folder, seen

    # Running

    async def start(self, ref: Ref, attachments: Attachments, report: Report) -> None:
        desired, folder = self._made(ref)
        if state.observe(folder).phase in UP:
            return
        from vmtui.backends.qemu import starting

        await starting.start(self.context, desired, folder, attachments, report)

    async def stop(self, ref: Ref, *, grace_s: float) -> None:
        from vmtui.guests import launch

        _, folder = self._made(ref)
        run, seen = folder / files.RUN, state.observe(folder)
        if seen.phase in UP and seen.process is not None:
            await self._ask_to_end(ref, run, seen.process, grace_s)
            await launch.end(folder, reap=False)
        if seen.phase is not Phase.STOPPED:
            write_atomic(run / files.STOPPED, b"")
        launch.remove_sockets(self.context.runtime_dir(ref))

    async def _ask_to_end(self, ref: Ref, run: Path, process: ProcessId, grace_s: float) -> None:
        from vmtui.backends.qemu import qmp

        """Press the power button, and wait. The mark first: however it ends from here on, it was stopped."""
        write_atomic(run / files.STOPPED, b"")
        (run / files.REAP).unlink(missing_ok=True)
        deadline = time.monotonic() + grace_s
        try:
            if (run / files.PAUSED).exists():
                await qmp.execute(self._socket(ref, "qmp"), "cont", timeout=ANSWER_S)
                (run / files.PAUSED).unlink()
            # Again and again: a guest that is just booting does not hear it.
            while (left := deadline - time.monotonic()) > 0:
                await qmp.execute(self._socket(ref, "qmp"), "system_powerdown", timeout=ANSWER_S)
                if await process.wait(min(left, PRESS_AGAIN_S)):
                    return
        except OperationFailed:
            return  # it does not answer: there is nobody to ask

    async def kill(self, ref: Ref) -> None:
        from vmtui.guests import launch

        _, folder = self._made(ref)
        if state.observe(folder).phase in UP:
            (folder / files.RUN / files.STOPPED).unlink(missing_ok=True)
            await launch.end(folder, reap=True)

    async def pause(self, ref: Ref) -> None:
        from vmtui.backends.qemu import qmp

        _, folder, _ = self._up(ref)
        await qmp.execute(self._socket(ref, "qmp"), "stop")
        write_atomic(folder / files.RUN / files.PAUSED, b"")

    async def resume(self, ref: Ref) -> None:
        from vmtui.backends.qemu import qmp

        _, folder, _ = self._up(ref)
        await qmp.execute(self._socket(ref, "qmp"), "cont")
        (folder / files.RUN / files.PAUSED).unlink(missing_ok=True)

    async def reconnect(self, ref: Ref, ports: Sequence[Port]) -> None:
        from vmtui.backends.qemu import tap

        _, folder, seen = self._up(ref)
        assert seen.process is not None
        tap.reattach(seen.process.pid, [port.interface for port in ports])
        if seen.launch is not None:
            renewed = msgspec.structs.replace(seen.launch, ports=tuple(ports))
            write_atomic(folder / files.RUN / files.LAUNCH, msgspec.json.encode(renewed))

    # Looking in

    async def console(self, ref: Ref) -> Terminal:
        from vmtui.backends.qemu import console

        self._up(ref)
        return await console.attach(self._socket(ref, "console"))

    async def logs(self, ref: Ref, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        from vmtui.guests import logs

        if not self._ours(ref):
            raise NotFound(f"{ref} does not exist")
        lines = logs.read(self.context.resource_dir(ref), tail=tail, follow=follow)
        async with aclosing(lines):  # type: ignore[type-var]
            async for line in lines:
                yield line

    async def log_source(self, ref: Ref) -> LogSource:
        from vmtui.guests import logs

        if not self._ours(ref):
            raise NotFound(f"{ref} does not exist")
        folder = self.context.resource_dir(ref)
        return LogSource(paths=(folder / f"{files.LOG}.1", folder / files.LOG), parse=logs.entry)

    async def exec(self, ref: Ref, request: ExecRequest) -> ExecSession:
        from vmtui.backends.qemu import agent
        from vmtui.guests import image, initramfs

        desired, folder, _ = self._up(ref)
        if desired.spec.rootfs is None:
            raise NotPermitted(
                f"{ref} was not booted from an image, so there is no agent of vmtui in it",
                hint=f"vmtui console {ref}, or SSH where the guest has it",
            )
        made = image.guest_of(folder, ref).command
        wanted = msgspec.structs.replace(
            initramfs.merged(made, dict(request.environment)),
            argv=request.argv,
            user=made.user if request.user is None else request.user,
            working_dir=request.working_dir or made.working_dir,
        )
        return await agent.open_session(
            self.context.runtime_dir(ref), wanted, tty=request.tty, rows=request.rows, columns=request.columns
        )

    async def stats(self, ref: Ref) -> Sample:
        from vmtui.backends.qemu import qmp
        from vmtui.guests import measure

        desired, _, seen = self._up(ref)
        assert seen.process is not None
        interfaces = [port.interface for port in seen.launch.ports] if seen.launch else []
        sample = measure.sample(seen.process.pid, int(desired.spec.memory), interfaces)
        try:
            read, written = await qmp.block_bytes(self._socket(ref, "qmp"))
        except OperationFailed:
            return sample
        return msgspec.structs.replace(sample, block_read_bytes=read, block_write_bytes=written)


_runnable: type[Runnable] = QemuBackend
_killable: type[Killable] = QemuBackend
_pausable: type[Pausable] = QemuBackend
_console: type[HasConsole] = QemuBackend
_logs: type[HasLogs] = QemuBackend
_log_files: type[LogFiles] = QemuBackend
_executes: type[Executes] = QemuBackend
_measurable: type[Measurable] = QemuBackend
_reconnectable: type[Reconnectable] = QemuBackend
