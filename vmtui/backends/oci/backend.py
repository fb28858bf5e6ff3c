"""The backend `oci` of kind container: the one place where its parts meet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import msgspec

from vmtui.backends.oci.observe import BACKEND, container_process, observe
from vmtui.backends.oci.options import OciOptions
from vmtui.backends.oci.places import PinnedImage, Places
from vmtui.backends.records import Record, Records
from vmtui.core.backend import (
    Attachments,
    Backend,
    Context,
    Desired,
    ExecRequest,
    ExecSession,
    Executes,
    FileTree,
    HasConsole,
    HasFiles,
    HasLogs,
    Killable,
    LogFiles,
    LogLine,
    LogSource,
    Measurable,
    Pausable,
    Probe,
    Progress,
    Reconnectable,
    Report,
    Runnable,
    Terminal,
)
from vmtui.core.errors import InvalidInput, NotFound, NotPermitted, OperationFailed
from vmtui.core.lifecycle import UP, Phase
from vmtui.core.resource import Kind, Port, Problem, Ref, Sample, Status
from vmtui.core.specs import ContainerSpec
from vmtui.host.files import in_words, remedy
from vmtui.host.tasks import uncancelled
from vmtui.runtime.cgroups import hierarchies
from vmtui.runtime.idmap import IdRanges

END_TIMEOUT_S = 10.0  # from SIGKILL to conmon's exit code
STOP_SIGNAL = "SIGTERM"


class OciBackend(Backend[ContainerSpec]):
    """Containers of OCI images. What it needs: docs/backends/oci.md."""

    name: ClassVar[str] = BACKEND
    kind: ClassVar[Kind] = Kind.CONTAINER
    options_type: ClassVar[type[msgspec.Struct] | None] = OciOptions
    priority: ClassVar[int] = 10

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._records: Records[ContainerSpec] = Records(context, Kind.CONTAINER, ContainerSpec, BACKEND, OciOptions)
        self._ids = IdRanges(context.paths.state / "idmaps", context.workspace)
        self._last_user = asyncio.Lock()  # two users of a volume that go at once: one of them is the last

    def _places(self, ref: Ref) -> Places:
        return Places(self.context, ref)

    def _record(self, ref: Ref) -> Record[ContainerSpec]:
        record = self._records.read(ref)
        if record is None:
            raise NotFound(f"{ref} is not there", hint="vmtui ls")
        return record

    async def probe(self) -> Probe:
        from vmtui.backends.oci.probe import probe

        return await probe(self.context)

    async def check(
        self,
        desired: Desired[ContainerSpec],
        others: Sequence[Desired[Any]],  # noqa: ARG002 - containers meet only on networks
    ) -> Sequence[Problem]:
        from vmtui.backends.oci.check import check

        return check(self.context, desired)

    async def scan(self) -> Sequence[Status]:
        trees = hierarchies()
        found = []
        for ref in self._records.refs():
            record = self._records.read(ref)
            if record is None and self._is_of_another(ref):
                continue
            found.append(observe(Places(self.context, ref, trees), record))
        return found

    def _is_of_another(self, ref: Ref) -> bool:
        """Whether the directory belongs to another backend of this kind: its record can be read, only not by us."""
        data = self.context.resource_dir(ref) / "record.json"
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            raw = msgspec.json.decode(data.read_bytes(), type=_AnyRecord)
            return raw.desired.backend != BACKEND or self.context.owned(raw.mark) != ref
        return False

    async def inspect(self, ref: Ref) -> Status:
        record = self._records.read(ref)
        if record is None and (not self.context.resource_dir(ref).is_dir() or self._is_of_another(ref)):
            raise NotFound(f"{ref} is not there", hint="vmtui ls")
        return observe(self._places(ref), record)

    async def create(self, desired: Desired[ContainerSpec], report: Report) -> None:
        from vmtui.backends.oci import names, volumes
        from vmtui.runtime.images import ImageStore
        from vmtui.runtime.overlay import make_writable

        ref, record = desired.ref, self._records.read(desired.ref)
        places = self._places(ref)
        made = record is not None and record.complete and record.desired.spec_hash == desired.spec_hash
        if made and places.read_image() is not None:
            self._records.finish(desired)  # fields that are outside the hash may have changed
            return
        if places.resource.exists():
            await self.delete(ref, purge=False)
        volumes.require_sources(desired.spec.volumes)
        try:
            self._records.begin(desired)
            image = await ImageStore(self.context.paths.cache).ensure(desired.spec.image, report)
            report(Progress(message="making its directories"))
            places.write_image(
                PinnedImage(
                    reference=image.reference, digest=image.digest, config=image.config, layers=tuple(image.layers)
                )
            )
            make_writable(places.writable)
            names.write(places.etc, desired.spec.hostname or ref.name, ())
            await asyncio.sleep(0)  # a cancellation that came meanwhile is raised here, where it can be undone
            self._records.finish(desired)
        except BaseException as error:
            await uncancelled(self.delete(ref, purge=False))
            if isinstance(error, OSError):
                hint = remedy(error, self.context.paths.state, self.context.paths.cache)
                raise OperationFailed(f"{ref} cannot be made: {in_words(error)}", hint=hint) from error
            raise

    async def delete(self, ref: Ref, *, purge: bool) -> None:
        from vmtui.backends.oci import volumes
        from vmtui.backends.oci.launch import clear
        from vmtui.backends.oci.trees import remove_tree

        record, places = self._records.read(ref), self._places(ref)
        if record is None and self._is_of_another(ref):
            return
        await clear(places)
        try:
            async with self._last_user:
                if record is not None:
                    for name in volumes.named(record.desired) - self._volumes_of_others(ref):
                        await volumes.Volumes(self.context).remove(ref.profile, name, with_data=purge)
                self._ids.release(ref)
                await remove_tree(places.resource)  # deeper than Records can: the container has written there
                self._records.remove(ref)
        except OSError as error:
            raise OperationFailed(f"{ref} cannot be removed: {in_words(error)}", hint=remedy(error)) from error

    def _volumes_of_others(self, ref: Ref) -> set[str]:
        from vmtui.backends.oci.volumes import named

        used: set[str] = set()
        for other in self._records.refs():
            record = self._records.read(other)
            if other != ref and other.profile == ref.profile and record is not None:
                used |= named(record.desired)
        return used

    async def files(self, ref: Ref) -> Sequence[FileTree]:
        from vmtui.backends.oci import volumes

        record = self._records.read(ref)
        found = []
        for name in sorted(volumes.named(record.desired)) if record is not None else ():
            data = volumes.Volumes(self.context).path(ref.profile, name)
            if data.is_dir():
                found.append(FileTree(name=name, path=str(data)))
        return found

    def held(self, ref: Ref) -> AbstractContextManager[None]:  # noqa: ARG002
        """Containers share their volumes, with us too."""
        return contextlib.nullcontext()

    def watch(self) -> AsyncIterator[Ref]:
        from vmtui.backends.oci.watch import Watcher

        return Watcher(self.context, self._records.refs).changes()

    async def start(self, ref: Ref, attachments: Attachments, report: Report) -> None:
        from vmtui.backends.oci.launch import Launch

        record, places = self._record(ref), self._places(ref)
        status = observe(places, record)
        if status.phase in UP:
            return
        if not record.complete:
            raise NotPermitted(f"{ref} is half made", hint=f"vmtui rm {ref}")
        image = await self._pinned(record, places, report)
        await Launch(self.context, places, record.desired, image, attachments.ports, self._ids).run(report)

    async def _pinned(self, record: Record[ContainerSpec], places: Places, report: Report) -> PinnedImage:
        """The image it was made from; fetched again if the cache was emptied, but never another one."""
        from vmtui.runtime.images import ImageStore

        image = places.read_image()
        if image is None:
            raise NotFound(f"{places.image} is gone or damaged", hint=f"vmtui rm {places.ref}")
        if all(os.path.isdir(layer) for layer in image.layers):
            return image
        again = await ImageStore(self.context.paths.cache).ensure(record.desired.spec.image, report)
        if again.digest != image.digest:
            raise OperationFailed(
                f"{places.ref} was made from {image.digest}, which is not in the cache; "
                f"{image.reference} is now {again.digest}",
                hint="vmtui --profile FILE --recreate",
            )
        pinned = msgspec.structs.replace(image, layers=tuple(again.layers))
        places.write_image(pinned)
        return pinned

    async def stop(self, ref: Ref, *, grace_s: float) -> None:
        from vmtui.backends.oci.launch import clear
        from vmtui.runtime import signals

        places = self._places(ref)
        process = container_process(places)
        if process is not None and places.runtime.is_dir():
            places.stopping.touch()
            record, image = self._records.read(ref), places.read_image()
            text = (record.desired.spec.stop_signal if record else None) or (image.config.stop_signal if image else "")
            try:
                number = signals.number(text or STOP_SIGNAL)
            except InvalidInput:  # the image's own, which nobody checked
                number = signal.SIGTERM
            process.signal(number)
            if places.cgroup.frozen:
                await places.cgroup.freeze(False)
            if await process.wait(grace_s):
                await self._ended(places)
        await clear(places)

    async def kill(self, ref: Ref) -> None:
        places = self._places(ref)
        process = container_process(places)
        if process is None:
            return
        process.signal(signal.SIGKILL)
        if places.cgroup.frozen:
            await places.cgroup.freeze(False)  # v1: it dies when it thaws
        await process.wait(END_TIMEOUT_S)
        await self._ended(places)

    async def _ended(self, places: Places) -> None:
        """Wait for conmon's word on how it ended, which comes after the last of the log."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                while places.conmon.exit() is None and places.conmon.conmon() is not None:  # noqa: ASYNC110 - a file
                    await asyncio.sleep(0.005)

    async def pause(self, ref: Ref) -> None:
        await self._freeze(ref, True)

    async def resume(self, ref: Ref) -> None:
        await self._freeze(ref, False)

    async def _freeze(self, ref: Ref, frozen: bool) -> None:
        places = self._running(ref)
        try:
            await places.cgroup.freeze(frozen)
        except OSError as error:
            done = "paused" if frozen else "resumed"
            raise OperationFailed(f"{ref} cannot be {done}: {in_words(error)}", hint=remedy(error)) from error

    def _running(self, ref: Ref) -> Places:
        places = self._places(ref)
        phase = observe(places, self._record(ref)).phase
        if phase not in UP:
            raise NotPermitted(f"{ref} is {phase}", hint=f"vmtui start {ref}")
        return places

    async def console(self, ref: Ref) -> Terminal:
        from vmtui.runtime.conmon import Attachment

        places = self._running(ref)
        try:
            return await Attachment.open(places.conmon, terminal=self._record(ref).desired.spec.tty)
        except OSError as error:
            raise NotPermitted(f"{ref}: its console does not answer: {error.strerror}") from error

    async def logs(self, ref: Ref, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        from vmtui.backends.oci import logs

        if not self.context.resource_dir(ref).is_dir():
            raise NotFound(f"{ref} is not there", hint="vmtui ls")
        async for line in logs.read(self._places(ref), tail=tail, follow=follow):
            yield line

    async def log_source(self, ref: Ref) -> LogSource:
        from vmtui.backends.oci import logs

        if not self.context.resource_dir(ref).is_dir():
            raise NotFound(f"{ref} is not there", hint="vmtui ls")
        places = self._places(ref)
        return LogSource(paths=(places.old_log, places.log), parse=logs.entry, timed=True)

    async def exec(self, ref: Ref, request: ExecRequest) -> ExecSession:
        from vmtui.backends.oci import execute

        places, record = self._running(ref), self._record(ref)
        if places.cgroup.frozen:
            raise NotPermitted(f"{ref} is {Phase.PAUSED}", hint=f"vmtui resume {ref}")
        image = places.read_image()
        if image is None:
            raise NotFound(f"{places.image} is gone or damaged", hint=f"vmtui rm {ref}")
        return await execute.start(places, record.desired, image.config, request)

    async def stats(self, ref: Ref) -> Sample:
        from vmtui.backends.oci.traffic import traffic

        places = self._running(ref)
        process = container_process(places)
        received, sent = traffic(process.pid) if process is not None else (None, None)
        return msgspec.structs.replace(places.cgroup.sample(), net_rx_bytes=received, net_tx_bytes=sent)

    async def reconnect(self, ref: Ref, ports: Sequence[Port]) -> None:
        from vmtui.backends.oci import names
        from vmtui.backends.oci.launch import plug

        places, record = self._running(ref), self._record(ref)
        process = container_process(places)
        if process is None:
            raise NotPermitted(f"{ref} does not run", hint=f"vmtui start {ref}")
        try:
            names.write(places.etc, record.desired.spec.hostname or ref.name, ports)
            await plug(process.pid, ports)
        except OSError as error:
            raise OperationFailed(f"{ref} cannot be plugged in: {in_words(error)}", hint=remedy(error)) from error


class _AnyDesired(msgspec.Struct):
    backend: str


class _AnyRecord(msgspec.Struct):
    mark: str
    desired: _AnyDesired


def _roles(
    backend: OciBackend,
) -> tuple[Runnable, Killable, Pausable, HasConsole, HasLogs, LogFiles, Executes, Measurable, Reconnectable, HasFiles]:
    """mypy checks here that the backend has the roles it means to have."""
    return (backend,) * 10
