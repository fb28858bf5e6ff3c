"""What all backends of virtual machines do alike: find, make, remove, stop and read one."""

from __future__ import annotations

import asyncio
import errno
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from vmtui.backends.records import Record, Records
from vmtui.core.backend import Attachments, Backend, Context, Desired, ExecRequest, LogLine, LogSource, Report
from vmtui.core.errors import Fault, NotFound, NotPermitted, OperationFailed
from vmtui.core.lifecycle import UP, Phase
from vmtui.core.resource import Kind, Port, Problem, Ref, Status
from vmtui.core.specs import VmSpec
from vmtui.guests import run as files
from vmtui.guests.state import Observed
from vmtui.host.files import in_words, remedy, write_atomic
from vmtui.host.process import ProcessId

if TYPE_CHECKING:
    from vmtui.guests.initramfs import Command

ANSWER_S = 2.0
PRESS_AGAIN_S = 1.0


class MachineBackend(Backend[VmSpec]):
    """One process for each VM, under a parent, found again by their files and /proc."""

    kind = Kind.VM
    control: ClassVar[str]  # the name of the socket by which a running VM is told what to do

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._records: Records[VmSpec] = Records(context, Kind.VM, VmSpec, self.name, self.options_type)

    @abstractmethod
    def _state(self, folder: Path) -> Observed:
        """What the files say of a VM that is made."""

    @abstractmethod
    def _faults(self, desired: Desired[VmSpec]) -> Iterator[Fault]:
        """What is wrong with the spec by itself, and with the files that it names."""

    @abstractmethod
    async def _press(self, ref: Ref, *, wake: bool) -> None:
        """Press the power button; with `wake` of one that is paused. Raises OperationFailed: it does not answer."""

    @abstractmethod
    async def _start(self, desired: Desired[VmSpec], folder: Path, attachments: Attachments, report: Report) -> None:
        """Start one that does not run. Raises and leaves it stopped on failure."""

    @abstractmethod
    async def _hold(self, ref: Ref) -> None:
        """Have it stand still. Raises OperationFailed."""

    @abstractmethod
    async def _release(self, ref: Ref) -> None:
        """Have it go on. Raises OperationFailed."""

    async def scan(self) -> Sequence[Status]:
        return [status for ref in self._records.refs() if (status := self._observe(ref)) is not None]

    def _observe(self, ref: Ref) -> Status | None:
        if not self._ours(ref):
            return None
        folder = self.context.resource_dir(ref)
        record = self._records.read(ref)
        if record is None or not record.complete:
            return self._half_made(ref, record)
        seen = self._state(folder)
        facts = seen.launch.facts() if seen.launch else ()
        phase, problems = seen.phase, seen.problems
        runs = phase in UP and seen.process is not None and seen.process.alive
        if runs and (folder / files.RUN / files.STARTED).exists() and not self._socket(ref, self.control).exists():
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

    async def create(self, desired: Desired[VmSpec], report: Report) -> None:
        from vmtui.guests import image

        ref, cache = desired.ref, self.context.paths.cache
        record = self._records.read(ref)
        if record is not None and record.complete and record.desired.spec_hash == desired.spec_hash:
            return
        for fault in self._faults(desired):
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

    def _up(self, ref: Ref) -> tuple[Desired[VmSpec], Path, Observed]:
        """Raises NotFound, NotPermitted (not running)."""
        desired, folder = self._made(ref)
        seen = self._state(folder)
        if seen.phase not in UP or seen.process is None:
            raise NotPermitted(f"{ref} is {seen.phase}, not running", hint=f"vmtui start {ref}")
        return desired, folder, seen

    # Running

    async def start(self, ref: Ref, attachments: Attachments, report: Report) -> None:
        desired, folder = self._made(ref)
        if self._state(folder).phase not in UP:
            await self._start(desired, folder, attachments, report)

    async def pause(self, ref: Ref) -> None:
        _, folder, _ = self._up(ref)
        await self._hold(ref)
        write_atomic(folder / files.RUN / files.PAUSED, b"")

    async def resume(self, ref: Ref) -> None:
        _, folder, _ = self._up(ref)
        await self._release(ref)
        (folder / files.RUN / files.PAUSED).unlink(missing_ok=True)

    async def stop(self, ref: Ref, *, grace_s: float) -> None:
        from vmtui.guests import launch

        _, folder = self._made(ref)
        run, seen = folder / files.RUN, self._state(folder)
        if seen.phase in UP and seen.process is not None:
            await self._ask_to_end(ref, run, seen.process, grace_s)
            await launch.end(folder, reap=False)
        if seen.phase is not Phase.STOPPED:
            write_atomic(run / files.STOPPED, b"")
        launch.remove_sockets(self.context.runtime_dir(ref))

    async def _ask_to_end(self, ref: Ref, run: Path, process: ProcessId, grace_s: float) -> None:
        """Press the power button, and wait. The mark first: however it ends from here on, it was stopped."""
        write_atomic(run / files.STOPPED, b"")
        (run / files.REAP).unlink(missing_ok=True)
        deadline = time.monotonic() + grace_s
        try:
            # Again and again: a guest that is just booting does not hear it.
            while (left := deadline - time.monotonic()) > 0:
                await self._press(ref, wake=(run / files.PAUSED).exists())
                (run / files.PAUSED).unlink(missing_ok=True)
                if await process.wait(min(left, PRESS_AGAIN_S)):
                    return
        except OperationFailed:
            return  # it does not answer: there is nobody to ask

    async def kill(self, ref: Ref) -> None:
        from vmtui.guests import launch

        _, folder = self._made(ref)
        if self._state(folder).phase in UP:
            (folder / files.RUN / files.STOPPED).unlink(missing_ok=True)
            await launch.end(folder, reap=True)

    def _remember(self, folder: Path, seen: Observed, ports: Sequence[Port]) -> None:
        """The ports that a running VM was plugged into anew."""
        if seen.launch is not None:
            renewed = msgspec.structs.replace(seen.launch, ports=tuple(ports))
            write_atomic(folder / files.RUN / files.LAUNCH, msgspec.json.encode(renewed))

    # Looking in

    async def _silent(self, ref: Ref, status: Status, fault: Fault) -> Status:
        """The status of one that did not answer: it ended meanwhile, or it has a problem. Raises NotFound."""
        from vmtui.guests import launch

        seen = self._state(self.context.resource_dir(ref))
        if seen.process is None or not seen.process.alive:
            await launch.noted(self.context.resource_dir(ref) / files.RUN)
            ended = self._observe(ref)
            if ended is None:
                raise NotFound(f"{ref} does not exist") from None
            return ended
        problem = Problem(code="no-answer", message=fault.message, hint=f"vmtui restart {ref}")
        return msgspec.structs.replace(status, problems=(*status.problems, problem))

    def _command(self, ref: Ref, request: ExecRequest) -> Command:
        """What is to be run inside. Raises NotFound, NotPermitted (not running, nobody in it to run it)."""
        from vmtui.guests import image, initramfs

        desired, folder, _ = self._up(ref)
        if desired.spec.rootfs is None:
            raise NotPermitted(
                f"{ref} was not booted from an image, so there is no agent of vmtui in it",
                hint=f"vmtui console {ref}, or SSH where the guest has it",
            )
        made = image.guest_of(folder, ref).command
        return msgspec.structs.replace(
            initramfs.merged(made, dict(request.environment)),
            argv=request.argv,
            user=made.user if request.user is None else request.user,
            working_dir=request.working_dir or made.working_dir,
        )

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
